/** Which files of a folder are those of the model in it, whose folder may come from anybody. @module */
import { afterAll, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { ownFiles, ownFilesAtTop, straysText } from "../../src/checkpoint/own_files.ts";
import { Workshop } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** Windows makes links only for administrators. */
const onUnix = test.if(process.platform !== "win32");

/** A folder with files, and links by what they lead to. */
function made(files: readonly string[], links: Record<string, string>, folder = "model"): string {
  const around = workshop.folder();
  const place = (path: string) => {
    const full = join(around, path);
    mkdirSync(dirname(full), { recursive: true });
    return full;
  };
  for (const path of files) writeFileSync(place(path), path);
  for (const [path, target] of Object.entries(links)) symlinkSync(target, place(path));
  return join(around, folder);
}

onUnix(
  "links take along nothing of who has the folder: neither keys, nor what is hidden in it",
  () => {
    const folder = made(
      [".ssh/id_ed25519", "passwd", "model/config.json", "model/.git/config", "model/sub/a.json"],
      {
        "model/assets": "../.ssh",
        "model/history": ".git",
        "model/tokenizer_config.json": ".git/config",
        "model/README.md": "../passwd",
        "model/extra.json": "../.ssh/id_ed25519",
        "model/sub/passwd": "../../passwd",
        "model/other.safetensors": "../.ssh/id_ed25519",
        "model/up": "..",
      },
    );
    const { paths, strays } = ownFiles(folder);
    expect(paths).toEqual(["config.json", "sub/a.json"]);
    expect(strays.toSorted()).toEqual([
      "README.md",
      "assets",
      "extra.json",
      "history",
      "other.safetensors",
      "sub/passwd",
      "tokenizer_config.json",
      "up",
    ]);
  },
);

onUnix(
  "links within the folder count, and those from a model's file to one of that name or to weights",
  () => {
    const folder = made(
      ["model/config.json", "model/a/notes", "other/tokenizer.json", "other/large.safetensors"],
      {
        "model/b": "a",
        "model/copy.json": "config.json",
        "model/tokenizer.json": "../other/tokenizer.json",
        "model/model.safetensors": "../other/large.safetensors",
      },
    );
    expect(ownFiles(folder)).toEqual({
      paths: [
        ...["a/notes", "b/notes", "config.json", "copy.json", "model.safetensors"],
        "tokenizer.json",
      ],
      strays: [],
    });
  },
);

onUnix("links into stores of contents by hash count: the Hub's cache, git-annex, DVC", () => {
  const hub = made(
    ["hub/blobs/abc", "hub/refs/main"],
    {
      "hub/snapshots/1/config.json": "../../blobs/abc",
      "hub/snapshots/1/onnx/model.onnx_data": "../../../blobs/abc",
      "hub/snapshots/1/main.json": "../../refs/main",
    },
    "hub/snapshots/1",
  );
  expect(ownFiles(hub))
    .toEqual({ paths: ["config.json", "onnx/model.onnx_data"], strays: ["main.json"] });
  const annex = made(
    [".git/annex/objects/aa/bb/key", "model/.dvc/cache/files/md5/ab/cd"],
    {
      "model/model.safetensors": "../.git/annex/objects/aa/bb/key",
      "model/config.json": ".dvc/cache/files/md5/ab/cd",
    },
  );
  expect(ownFiles(annex)).toEqual({ paths: ["config.json", "model.safetensors"], strays: [] });
});

onUnix("a folder that is a link itself is the folder it leads to", () => {
  const folder = made(
    ["real/config.json", "real/.env"],
    { "model": "real", "real/copy.json": "config.json", "real/env.json": ".env" },
  );
  expect(ownFiles(folder)).toEqual({ paths: ["config.json", "copy.json"], strays: ["env.json"] });
});

test("what is left out is told by its name, and how many more there are", () => {
  expect(straysText(["a"])).toBe("a is a link to what is none of the model's: it is left out");
  expect(straysText(["a", "b", "c"]))
    .toBe("a and 2 more are links to what is none of the model's: they are left out");
});

onUnix("those at the folder's top are found without looking below", () => {
  const folder = made(
    ["model/config.json", "model/.env", "model/sub/a.json", "secret"],
    { "model/LICENSE": "../secret", "model/copy.json": "config.json", "model/up": ".." },
  );
  expect(ownFilesAtTop(folder)).toEqual({
    paths: ["config.json", "copy.json"],
    strays: ["LICENSE"],
  });
});
