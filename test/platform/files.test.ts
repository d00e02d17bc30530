import { afterAll, expect, test } from "bun:test";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { FileReadError, FileWriteError } from "../../src/errors.ts";
import {
  assertReplaceable,
  copyFile,
  readJson,
  readText,
  replaceText,
} from "../../src/platform/files.ts";
import { pathsIn } from "../../src/platform/folders.ts";
import { exists } from "../../src/platform/paths.ts";
import { PositionedFile } from "../../src/platform/positioned_file.ts";
import { Workshop } from "../checkpoint/support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

test.if(process.platform !== "win32")(
  "a text is replaced behind a link, for all who could read it",
  () => {
    const place = workshop.folder();
    const [file, link] = [join(place, "file"), join(place, "link")];
    symlinkSync("file", link);
    replaceText(file, "new");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    writeFileSync(file, "old");
    chmodSync(file, 0o664);
    replaceText(link, "newer");
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(readFileSync(file, "utf8")).toBe("newer");
    expect(statSync(file).mode & 0o777).toBe(0o664);
    expect(readdirSync(place).sort()).toEqual(["file", "link"]);
  },
);

test("a text is put in no place of a folder or a device", () => {
  const folder = workshop.folder();
  for (const place of [folder, ...process.platform === "win32" ? [] : ["/dev/null"]]) {
    expect(() => replaceText(place, "new")).toThrow(FileWriteError);
    expect(() => assertReplaceable(place)).toThrow(FileWriteError);
    expect(statSync(place).isFile()).toBe(false);
  }
  expect(readdirSync(folder)).toEqual([]);
});

test("a copy says which of the two files it is that cannot be read or written", () => {
  const place = workshop.folder();
  const [file, nowhere] = [join(place, "file"), join(place, "none", "file")];
  writeFileSync(file, "text");
  expect(() => copyFile(nowhere, file)).toThrow(FileReadError);
  expect(() => copyFile(file, nowhere)).toThrow(FileWriteError);
  expect(readFileSync(file, "utf8")).toBe("text");
});

test("JSON that is nested too deeply is refused, whatever the runtime's stack holds", () => {
  const file = join(workshop.folder(), "file.json");
  const nested = (levels: number) =>
    `{"a\\"]":${"[".repeat(levels - 1)}1${"]".repeat(levels - 1)}}`;
  for (const levels of [501, 20_000, 2_000_000]) {
    writeFileSync(file, nested(levels));
    expect(() => readJson(file, 1 << 23)).toThrow(
      new FileReadError(`${file} has values that are nested more than 500 levels deep`),
    );
  }
  writeFileSync(file, nested(500));
  expect(JSON.stringify(readJson(file, 1 << 20))).toBe(nested(500));
  const wide = `[${Array(1000).fill(String.raw`{"a":["[{[{\\"]}`).join(",")}]`;
  writeFileSync(file, wide);
  expect(JSON.stringify(readJson(file, 1 << 20))).toBe(wide);
});

test.if(process.platform !== "win32")(
  "a temporary file is a new one, for nobody else",
  () => {
    const place = workshop.folder();
    const [file, link] = [join(place, "file"), join(place, "link")];
    PositionedFile.open(file, "temporary").close();
    expect(statSync(file).mode & 0o777).toBe(0o600);
    symlinkSync("planted", link);
    for (const taken of [file, link]) {
      expect(() => PositionedFile.open(taken, "temporary")).toThrow(FileWriteError);
    }
    expect(readdirSync(place).sort()).toEqual(["file", "link"]);
  },
);

test.if(process.platform !== "win32")(
  "a folder's paths are of files, by way of links too, but not of links to a folder around",
  () => {
    // One at a time: several would be followed by one another, and a mistake have no end.
    for (
      const [links, more] of [
        [{ latest: "." }, []],
        [{ "a/up": ".." }, []],
        [{ "a/b": "../b", "b/a": "../a" }, ["a/b/file", "b/a/file"]],
        [{ lost: "nowhere" }, []],
      ] as const
    ) {
      const folder = workshop.folder();
      for (const part of ["a", "b", ".git"]) {
        mkdirSync(join(folder, part));
        writeFileSync(join(folder, part, "file"), part);
      }
      for (const [link, to] of Object.entries(links)) symlinkSync(to, join(folder, link));
      const visible = ["a/file", "b/file", ...more].sort();
      expect(pathsIn(folder)).toEqual([".git/file", ...visible]);
      expect(pathsIn(folder, (path) => path === ".git")).toEqual(visible);
    }
  },
);

test.if(process.platform !== "win32")(
  "a place that may not be looked into is not taken for an empty one",
  () => {
    const locked = join(workshop.folder(), "locked");
    mkdirSync(locked);
    const file = join(locked, "file");
    writeFileSync(file, "text");
    expect(exists(join(file, "below"))).toBe(false);
    const isRoot = process.getuid?.() === 0;
    chmodSync(locked, 0);
    // Root may look everywhere.
    if (isRoot) process.seteuid!(65534);
    try {
      for (const look of [() => exists(file), () => readText(file, 100)]) {
        expect(look).toThrow(FileReadError);
        expect(look).toThrow(`cannot read ${file}: permission denied`);
      }
    } finally {
      if (isRoot) process.seteuid!(0);
      chmodSync(locked, 0o755);
    }
  },
);
