import { afterAll, describe, expect, test } from "bun:test";
import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type EspalierError,
  FileReadError,
  TextError,
  TokenizerError,
  TokenRangeError,
} from "../../src/errors.ts";
import { type Corpus, readCorpus } from "../../src/text/corpus.ts";
import { openTokenizer } from "../../src/text/folder.ts";
import {
  assertInVocabulary,
  consecutiveWindows,
  randomWindows,
  uniformNumbers,
} from "../../src/text/windows.ts";
import { thrownBy, Workshop } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const TINY = fromRoot("examples/tiny");

/** Where the windows of seed 1 begin in the example's calibration text, 256 tokens each. */
const STARTS = [
  57725,
  251,
  48554,
  90310,
  89144,
  25876,
  56414,
  66348,
  39196,
  91578,
  41909,
  44995,
  12789,
  37166,
  22785,
  14221,
];

/** A file of text in a temporary folder. */
function file(name: string, content: string | Uint8Array): string {
  const path = join(workshop.folder(), name);
  writeFileSync(path, content);
  return path;
}

/** Checks that a file is refused with an error of one class whose one line says all of this. */
function refused(
  path: string,
  kind: new (message: string) => EspalierError,
  ...parts: string[]
): void {
  const error = thrownBy(() => readCorpus(path));
  expect(error).toBeInstanceOf(kind);
  for (const part of [path, ...parts]) expect(error.message).toContain(part);
  expect(error.message).not.toContain("\n");
}

function textOf(corpus: Corpus): string {
  if (corpus.kind !== "text") throw new Error("no text");
  return corpus.text;
}

function windowsOf(corpus: Corpus): number[][] {
  if (corpus.kind !== "windows") throw new Error("no windows");
  return corpus.windows.map((window) => [...window]);
}

describe("a corpus", () => {
  test("is plain text whatever the name of its file ends in", () => {
    const text = "One line.\r\nAnother: Ünïcödé 🌳\n\n";
    for (const name of ["a.txt", "b.md", "c", "json", "d.jsonl.txt"]) {
      expect(textOf(readCorpus(file(name, text)))).toBe(text);
    }
    expect(textOf(readCorpus(file("empty.txt", "")))).toBe("");
  });

  test("does not begin with a byte order mark", () => {
    expect(textOf(readCorpus(file("a.txt", "\ufeffText")))).toBe("Text");
  });

  test("is the text fields of lines of JSON, with a blank line between two", () => {
    const lines = [
      '{"text":"One."}',
      '{"id":7,"text":"Two,\\nof two lines.","meta":{"text":"not this"}}\r',
      "",
      "   ",
      '{"text":""}',
      '{"text":"Last."}',
    ];
    const text = "One.\n\nTwo,\nof two lines.\n\n\n\nLast.";
    expect(textOf(readCorpus(file("a.jsonl", lines.join("\n"))))).toBe(text);
    expect(textOf(readCorpus(file("b.jsonl", `${lines.join("\n")}\n`)))).toBe(text);
    expect(textOf(readCorpus(file("C.JSONL", lines.join("\n"))))).toBe(text);
    expect(readCorpus(file("W.JSON", '{"windows": [[1, 2]]}')).kind).toBe("windows");
    expect(textOf(readCorpus(file("none.jsonl", "\n\n")))).toBe("");
  });

  test("is windows of token ids in JSON", () => {
    const windows = [[0, 1, 2], [3, 4, 2147483647]];
    expect(windowsOf(readCorpus(file("a.json", JSON.stringify({ windows }))))).toEqual(windows);
    const more = JSON.stringify({ windows, source: "a test", seed: 1 });
    expect(windowsOf(readCorpus(file("b.json", more)))).toEqual(windows);
  });

  test("must be a file that can be read", () => {
    refused(join(workshop.path, "missing.txt"), FileReadError, "not a file");
    refused(join(workshop.path, "missing.json"), FileReadError, "not a file");
    refused(workshop.folder(), FileReadError, "not a file");
  });

  test("must be UTF-8", () => {
    for (const name of ["a.txt", "a.jsonl", "a.json"]) {
      refused(file(name, Uint8Array.of(0x22, 0xe4, 0x22)), FileReadError, "UTF-8");
    }
  });

  test("must have valid JSON in every line", () => {
    const cases: [string, string][] = [
      ['{"text":"One."}\n{"text":', "line 2: not valid JSON"],
      ["plain text", "line 1: not valid JSON"],
      ['\n\n{"text":"One."}{"text":"Two."}', "line 3: not valid JSON"],
      ['{"text":"One."}\n{"content":"Two."}', 'line 2: no field "text"'],
      ['{"text":7}', 'line 1: no field "text"'],
      ['{"text":null}', 'line 1: no field "text"'],
      ['["text"]', 'line 1: no field "text"'],
      ["null", 'line 1: no field "text"'],
    ];
    for (const [content, part] of cases) refused(file("a.jsonl", content), TextError, part);
  });

  test("must have windows that are lists of token ids", () => {
    refused(file("a.json", "{"), FileReadError, "not valid JSON");
    const bad: [unknown, string][] = [
      [null, "windows"],
      [[[1, 2]], "windows"],
      [{}, "windows"],
      [{ windows: null }, "windows"],
      [{ windows: [] }, "windows"],
      [{ windows: [[]] }, "windows.0"],
      [{ windows: [[1]] }, "windows.0"],
      [{ windows: [[1, 2], "3, 4"] }, "windows.1"],
      [{ windows: [[1, 2], [3, -4]] }, "windows.1.1"],
      [{ windows: [[1, 2], [3.5, 4]] }, "windows.1.0"],
      [{ windows: [[1, "2"]] }, "windows.0.1"],
      [{ windows: [[1, null]] }, "windows.0.1"],
      [{ windows: [[1, 2147483648]] }, "windows.0.1"],
      [{ windows: [[1, 2], [3, 4, 5]] }, "window 1 has 3 tokens, window 0 has 2"],
    ];
    for (const [json, part] of bad) refused(file("b.json", JSON.stringify(json)), TextError, part);
  });
});

describe("random numbers", () => {
  test("are those of mulberry32", () => {
    const first = (seed: number) => {
      const next = uniformNumbers(seed);
      return [next(), next(), next()];
    };
    expect(first(1)).toEqual([0.6270739405881613, 0.002735721180215478, 0.5274470399599522]);
    expect(first(0)).toEqual([0.26642920868471265, 0.0003297457005828619, 0.2232720274478197]);
    expect(first(2 ** 32)).toEqual(first(0));
  });

  test("spread over [0, 1)", () => {
    const next = uniformNumbers(7);
    const tenths = new Array(10).fill(0);
    for (let i = 0; i < 100_000; i++) tenths[Math.floor(next() * 10)]++;
    expect(tenths.length).toBe(10);
    for (const count of tenths) expect(Math.abs(count - 10_000)).toBeLessThan(500);
  });
});

describe("windows", () => {
  const counted = (length: number) => Int32Array.from({ length }, (_, i) => i);

  test("begin at the places of the seed, as the oracle's do", () => {
    const windows = randomWindows(counted(92_310), STARTS.length, 256, 1);
    expect(windows.map((window) => window[0])).toEqual(STARTS);
    for (const window of windows) {
      expect(window.length).toBe(256);
      expect(window[255]).toBe(window[0] + 255);
    }
  });

  test("are the same for more windows of the same seed, and others for another", () => {
    const tokens = counted(10_000);
    const few = randomWindows(tokens, 3, 32, 5);
    expect(randomWindows(tokens, 7, 32, 5).slice(0, 3)).toEqual(few);
    expect(randomWindows(tokens, 3, 32, 6)).not.toEqual(few);
  });

  test("reach to the last token of a text", () => {
    const starts = new Set(randomWindows(counted(10), 200, 8, 0).map((window) => window[0]));
    expect([...starts].sort()).toEqual([0, 1, 2]);
    expect(randomWindows(counted(8), 2, 8, 0)).toEqual([counted(8), counted(8)]);
  });

  test("are copies that do not hold on to the text", () => {
    const tokens = counted(100);
    const [random] = randomWindows(tokens, 1, 8, 0);
    const [first] = consecutiveWindows(tokens, 8);
    tokens.fill(-1);
    expect(random[1]).toBe(random[0] + 1);
    expect([...first]).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  test("follow each other without overlap, and leave out what fills none", () => {
    const windows = consecutiveWindows(counted(11), 3);
    expect(windows.map((window) => [...window])).toEqual([[0, 1, 2], [3, 4, 5], [6, 7, 8]]);
    expect(consecutiveWindows(counted(9), 3)).toHaveLength(3);
    expect(consecutiveWindows(counted(11), 3, 2)).toHaveLength(2);
    expect(consecutiveWindows(counted(11), 3, 100)).toHaveLength(3);
  });

  test("need a text of at least one window", () => {
    for (
      const cut of [
        () => randomWindows(counted(7), 1, 8, 0),
        () => consecutiveWindows(counted(7), 8),
        () => consecutiveWindows(counted(0), 2),
      ]
    ) {
      const error = thrownBy(cut);
      expect(error).toBeInstanceOf(TextError);
      expect(error.message).toContain("--seqlen");
    }
  });

  test("must have ids in the vocabulary", () => {
    assertInVocabulary([Int32Array.of(0, 9), Int32Array.of(5, 5)], 10);
    for (const id of [10, -1, 2147483647]) {
      const windows = [Int32Array.of(0, 9), Int32Array.of(1, 2, id)];
      const error = thrownBy(() => assertInVocabulary(windows, 10));
      expect(error).toBeInstanceOf(TokenRangeError);
      expect(error.message).toContain(`window 1, token 2: id ${id}`);
    }
  });
});

describe("the example's tokenizer", () => {
  const tokens = openTokenizer(TINY).encode(textOf(readCorpus(join(TINY, "calibration.txt"))));

  test("gives as many tokens of the calibration text as the oracle's", () => {
    expect(tokens.length).toBe(92_310);
  });

  test("gives the tokens of the oracle's windows", () => {
    const windows = randomWindows(tokens, 16, 256, 1);
    const heads = [
      [221, 18, 16, 17, 18, 387, 271, 291, 292, 3003, 3797, 3896, 396, 2180, 277, 258],
      [1073, 1083, 276, 280, 221, 17],
      [909, 291, 263, 2051, 1098, 2964],
      [601, 277, 263, 845, 987, 12],
      [2053, 400, 2404, 1353, 343, 1654],
      [46, 35, 2, 748, 3544, 263],
    ];
    heads.forEach((head, i) => expect([...windows[i].slice(0, head.length)]).toEqual(head));
    expect([...windows[15].slice(0, 6)]).toEqual([263, 2199, 754, 427, 83, 263]);
  });

  test("puts no special tokens around a text", () => {
    const tokenizer = openTokenizer(TINY);
    expect([...tokenizer.encode("")]).toEqual([]);
    const [one, two] = ["The river", " is long"].map((text) => [...tokenizer.encode(text)]);
    expect([...tokenizer.encode("The river is long")]).toEqual([...one, ...two]);
  });

  test("gives ids in the vocabulary for any text", () => {
    const tokenizer = openTokenizer(TINY);
    const odd = "\u0000\u001b[0m 🌳 你好 \ud800 ﷽ <|endoftext|> \u202e".repeat(3);
    assertInVocabulary([tokenizer.encode(odd)], 4096);
  });
});

describe("a tokenizer", () => {
  test("must be there", () => {
    const folder = workshop.folder();
    const error = thrownBy(() => openTokenizer(folder));
    expect(error).toBeInstanceOf(TokenizerError);
    for (const part of [folder, "tokenizer.json", "windows"]) expect(error.message).toContain(part);
  });

  test("does without tokenizer_config.json", () => {
    const folder = workshop.folder();
    copyFileSync(join(TINY, "tokenizer.json"), join(folder, "tokenizer.json"));
    const ids = openTokenizer(folder).encode("The river");
    expect([...ids]).toEqual([...openTokenizer(TINY).encode("The river")]);
  });

  test("must be one that can be used", () => {
    const whole = readFileSync(join(TINY, "tokenizer.json"), "utf8");
    const contents = [
      "",
      "{",
      "null",
      "[]",
      "{}",
      "7",
      whole.slice(0, whole.length / 2),
      JSON.stringify({ ...JSON.parse(whole), model: null }),
      JSON.stringify({ ...JSON.parse(whole), model: { type: "Unknown" } }),
      JSON.stringify({ ...JSON.parse(whole), pre_tokenizer: { type: "Unknown" } }),
    ];
    for (const content of contents) {
      const folder = workshop.folder();
      writeFileSync(join(folder, "tokenizer.json"), content);
      const error = thrownBy(() => openTokenizer(folder).encode("The river"));
      expect({ content: content.slice(-200), name: error.name, message: error.message })
        .toMatchObject({ name: "TokenizerError" });
      expect(error.message).toContain("tokenizer.json");
    }
  });

  test("must not have a broken tokenizer_config.json beside it", () => {
    const folder = workshop.folder();
    copyFileSync(join(TINY, "tokenizer.json"), join(folder, "tokenizer.json"));
    for (const content of ["", "{", "null"]) {
      writeFileSync(join(folder, "tokenizer_config.json"), content);
      expect(thrownBy(() => openTokenizer(folder).encode("x"))).toBeInstanceOf(TokenizerError);
    }
    rmSync(join(folder, "tokenizer_config.json"));
    openTokenizer(folder);
  });
});
