/** Messages as a prompt, with a chat template and without. @module */
import { expect, test } from "bun:test";
import type { Model } from "../../src/generate/model.ts";
import { promptOf } from "../../src/server/conversation.ts";

type Messages = Parameters<typeof promptOf>[1];

const model = (canChat: boolean) => ({ canChat }) as Model;

test("without a chat template messages stand one below the other, but for answers that go on in a line", () => {
  const messages = [
    { role: "user", content: "Once upon" },
    { role: "assistant", content: " a time" },
    { role: "user", content: " there was" },
    { role: "assistant", content: "a river" },
  ] as unknown as Messages;
  expect(promptOf(model(false), messages)).toBe("Once upon a time\n there was\na river");
});

test("messages that say that they call no tools are as any others", () => {
  const content = "It is long.";
  const messages = [{ role: "assistant", content, tool_calls: [], function_call: null }];
  expect(promptOf(model(true), messages as unknown as Messages)).toEqual([{
    role: "assistant",
    content,
  }]);
});
