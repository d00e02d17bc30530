/**
 * What a page and the worker with its engine tell each other.
 * @module
 */
import type { EndPiece } from "../../generate/generate.ts";
import type { LoadedInfo } from "../../generate/model.ts";
import type { ModelCard } from "../../generate/card.ts";
import type { GenerationOptions } from "../../generate/options.ts";
import type { Message } from "../../text/chat_template.ts";

/** How the page's model is loaded; `bundle` writes it into the page. */
export interface PageSettings {
  /** What the model is called. */
  readonly name: string;
  /** Bytes of its files. */
  readonly bytes: number;
  readonly context?: number;
  readonly kv?: "auto" | "f32" | "int8";
}

/** What the page asks for. */
export type Request =
  | {
    readonly type: "load";
    /** Where the model lies. */
    readonly url: string;
    readonly settings: PageSettings;
  }
  | {
    readonly type: "generate";
    readonly id: number;
    readonly prompt: string | readonly Message[];
    readonly options: Omit<GenerationOptions, "signal" | "constraint">;
    /** Whether the answer is a JSON object. */
    readonly json: boolean;
  }
  | { readonly type: "stop"; readonly id: number };

/** What the worker answers. */
export type Reply =
  | { readonly type: "progress"; readonly done: number; readonly total: number | undefined }
  | {
    readonly type: "loaded";
    readonly info: LoadedInfo;
    readonly canChat: boolean;
    readonly card: ModelCard | undefined;
  }
  | { readonly type: "unloaded"; readonly failure: Failure }
  | { readonly type: "text"; readonly id: number; readonly text: string }
  | { readonly type: "end"; readonly id: number; readonly end: EndPiece }
  | { readonly type: "failed"; readonly id: number; readonly failure: Failure };

/** An error, as far as it can be sent. */
export interface Failure {
  /** Of an `EspalierError`. */
  readonly code?: string;
  readonly message: string;
  /** Whether there was no answer at all. */
  readonly offline: boolean;
}
