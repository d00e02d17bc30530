/** What a user is told where the native ONNX Runtime does not load. @module */
import { expect, test } from "bun:test";
import { notLoaded } from "../../src/engine/ort/node_module.ts";

test("a package that is not installed is to be installed", () => {
  const { code, message } = notLoaded(new Error("Cannot find module 'onnxruntime-node'"), false);
  expect(code).toBe("BACKEND_FAILED");
  expect(message).toContain("not installed here: run `npm install`");
});

test("one that is installed and does not load says why, in a line, and nothing of installing it", () => {
  const cause = new Error(
    "libonnxruntime.so.1: cannot open shared object file\nRequire stack:\n- a",
  );
  const error = notLoaded(cause, true);
  expect(error.code).toBe("BACKEND_FAILED");
  expect(error.message).toContain("(libonnxruntime.so.1: cannot open shared object file)");
  expect(error.message).not.toMatch(/npm|\n/);
  expect(error.cause).toBe(cause);
});

test("what Deno does not allow is told as that", () => {
  const cause = Object.assign(new Error("Requires ffi access, run with --allow-ffi"), {
    name: "NotCapable",
  });
  for (const isInstalled of [true, false]) {
    const { code, message } = notLoaded(cause, isInstalled);
    expect(code).toBe("PERMISSION_MISSING");
    expect(message).toContain("--allow-ffi");
  }
});
