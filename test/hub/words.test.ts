/** Names of models at the Hub, and the environment. @module */
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { folderName } from "../../src/checkpoint/folder_name.ts";
import { isHubReference, parseReference } from "../../src/hub/reference.ts";
import { readSettings } from "../../src/hub/settings.ts";
import { rejectionOf, thrownBy, Workshop } from "../checkpoint/support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

describe("a name", () => {
  test("has an owner, a name and perhaps a revision", () => {
    expect(parseReference("hf:HuggingFaceTB/SmolLM2-135M"))
      .toEqual({ repository: "HuggingFaceTB/SmolLM2-135M", revision: "main" });
    expect(parseReference("hf:a/b.c_d@refs/pr/12"))
      .toEqual({ repository: "a/b.c_d", revision: "refs/pr/12" });
    expect(parseReference("hf:a/b@v1.0+x").revision).toBe("v1.0+x");
  });

  test("begins with hf:, and folders do not", () => {
    expect(isHubReference("hf:x")).toBe(true);
    for (const word of ["a/b", "./hf:a/b", "https://huggingface.co/a/b", "HF:a/b", 7, undefined]) {
      expect(isHubReference(word)).toBe(false);
    }
  });

  const wrong = [
    "a/b",
    "hf:",
    "hf:a",
    "hf:a/",
    "hf:/b",
    "hf:a/b/c",
    "hf:../b",
    "hf:a/..",
    "hf:a/.b",
    "hf:a/b--c",
    "hf:a/b c",
    "hf:a/b\\c",
    "hf:a/b?x=1",
    "hf:a/b#c",
    "hf:a/b%2e",
    "hf:a/b\0",
    "hf:a/b\n",
    "hf:C:/b",
    `hf:a/${"b".repeat(100)}`,
    "hf:a/b@",
    "hf:a/b@..",
    "hf:a/b@../../x",
    "hf:a/b@/x",
    "hf:a/b@x//y",
    "hf:a/b@x/../y",
    "hf:a/b@x\\y",
    "hf:a/b@-x",
    "hf:a/b@x y",
    "hf:a/b@x@y",
    "hf:a/b@x?y",
    "hf:a/b@x.lock",
    "hf:a/b@x\n",
    `hf:a/b@${"x".repeat(300)}`,
  ];
  for (const word of wrong) {
    test(`is not ${JSON.stringify(word.length > 60 ? `${word.slice(0, 20)}…` : word)}`, () => {
      const error = thrownBy(() => parseReference(word));
      expect(error.code).toBe("USAGE");
      expect(error.message).not.toContain("\n");
    });
  }
});

describe("the name of a model's folder", () => {
  test("is that of the folder, in the Hub's cache that of the repository", () => {
    const commit = "0123456789abcdef0123456789abcdef01234567";
    expect(folderName("/models/tiny/")).toBe("tiny");
    expect(folderName(`/c/models--owner--some-model/snapshots/${commit}`)).toBe("some-model");
    expect(folderName(`/c/models--owner--some--model/snapshots/${commit}`)).toBe("some--model");
    expect(folderName(`/c/models--gpt2/snapshots/${commit}/`)).toBe("gpt2");
    expect(folderName(`/c/models--owner--some-model/snapshots/v1`)).toBe("v1");
    expect(folderName(`/c/x/snapshots/${commit}`)).toBe(commit);
  });
});

describe("settings", () => {
  const names = [
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
  ];
  const before = Object.fromEntries(names.map((name) => [name, process.env[name]]));
  const set = (values: Record<string, string | undefined>) => {
    for (const name of names) {
      if (values[name] === undefined) delete process.env[name];
      else process.env[name] = values[name];
    }
  };
  afterEach(() => set(before));

  test("are those of the Hub where nothing is set", async () => {
    const home = workshop.folder();
    set({ HF_HOME: home });
    expect(await readSettings()).toMatchObject({
      endpoint: "https://huggingface.co",
      cache: join(home, "hub"),
      offline: false,
    });
    expect((await readSettings()).token).toBeUndefined();
    set({});
    expect((await readSettings()).cache).toBe(join(homedir(), ".cache/huggingface/hub"));
  });

  test("have the token of the login where a variable for it is there and empty", async () => {
    const home = workshop.folder();
    writeFileSync(join(home, "token"), "hf_stored\n");
    for (const empty of ["", " ", "\n"]) {
      for (const name of ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
        set({ HF_HOME: home, [name]: empty });
        expect([name, (await readSettings()).token]).toEqual([name, "hf_stored"]);
      }
    }
    set({ HF_HOME: home, HF_TOKEN: "", HUGGING_FACE_HUB_TOKEN: " hf_given " });
    expect((await readSettings()).token).toBe("hf_given");
  });

  test("come from the variables that all clients of the Hub read", async () => {
    const home = workshop.folder();
    const cache = join(home, "elsewhere");
    set({
      HF_HOME: home,
      HF_HUB_CACHE: cache,
      HF_ENDPOINT: "http://localhost:1234/hub/",
      HF_TOKEN: " hf_x\n",
      HF_HUB_OFFLINE: "1",
    });
    expect(await readSettings())
      .toMatchObject({
        endpoint: "http://localhost:1234/hub",
        token: "hf_x",
        cache,
        offline: true,
      });
    set({ XDG_CACHE_HOME: home, HF_HUB_OFFLINE: "0" });
    expect(await readSettings())
      .toMatchObject({ cache: join(home, "huggingface/hub"), offline: false });
  });

  test("take the token that a login wrote, unless one is given", async () => {
    const home = workshop.folder();
    writeFileSync(join(home, "token"), "hf_file\n");
    set({ HF_HOME: home });
    expect((await readSettings()).token).toBe("hf_file");
    set({ HF_HOME: home, HF_TOKEN: "hf_given" });
    expect((await readSettings()).token).toBe("hf_given");
    mkdirSync(join(home, "other"));
    set({ HF_HOME: join(home, "other"), HF_TOKEN_PATH: join(home, "token") });
    expect((await readSettings()).token).toBe("hf_file");
  });

  test("have paths in which ~ and variables stand for what Python's client takes them for", async () => {
    const home = workshop.folder();
    writeFileSync(join(home, "token"), "hf_file\n");
    set({ HF_HOME: "~/models" });
    expect((await readSettings()).cache).toBe(join(homedir(), "models/hub"));
    set({
      XDG_CACHE_HOME: home,
      HF_HOME: "$XDG_CACHE_HOME",
      HF_HUB_CACHE: "${XDG_CACHE_HOME}/a/~",
    });
    expect(await readSettings()).toMatchObject({ token: "hf_file", cache: join(home, "a/~") });
    set({
      HF_TOKEN_PATH: "$XDG_CACHE_HOME/token",
      XDG_CACHE_HOME: home,
      HF_HUB_CACHE: "/a/$NOT_SET_b",
    });
    expect(await readSettings()).toMatchObject({ token: "hf_file", cache: "/a/$NOT_SET_b" });
  });

  test("need no home folder, which users whom a container does not know have not, where a place is named", async () => {
    const place = workshop.folder();
    set({});
    const { code, message } = await rejectionOf(readSettings(null));
    expect({ code, message }).toEqual({
      code: "USAGE",
      message:
        "there is no home folder to keep models of the Hub in: set HF_HOME to a folder for them",
    });
    set({ HF_HUB_CACHE: place });
    const { cache, token } = await readSettings(null);
    expect({ cache, token }).toEqual({ cache: place, token: undefined });
    set({ HF_HOME: place });
    expect((await readSettings(null)).cache).toBe(join(place, "hub"));
  });

  test("that are wrong are errors which do not show a token", async () => {
    for (const HF_ENDPOINT of ["huggingface.co", "ftp://x", "http://x/?y", "http://u@x"]) {
      set({ HF_ENDPOINT });
      expect((await rejectionOf(readSettings())).message).toContain("HF_ENDPOINT");
    }
    set({ HF_TOKEN: "hf_secret\r\nx-header: 1" });
    const { message } = await rejectionOf(readSettings());
    expect(message).toContain("HF_TOKEN");
    expect(message).not.toContain("secret");
  });
});
