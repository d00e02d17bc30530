/**
 * The pages in Chromium on what they are for: `serve`, with the example and a chat template.
 *
 *     bun test/browser/pages/served.ts [--pictures FOLDER]
 *
 * @module
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { CompileWorkshop } from "../../compile/support.ts";
import { startServer } from "../../consumers/serving.ts";
import { makeFolders } from "../../server/models.ts";
import { fromRoot } from "../../support/paths.ts";

const workshop = new CompileWorkshop();
try {
  const { chat } = await makeFolders(workshop);
  // One thread, and ONNX Runtime: a model this small would have answered before anybody can stop it.
  const words = ["--engine", "ort", "--device", "wasm", "--threads", "1"];
  const server = await startServer("deno", chat, words);
  try {
    const driver = fromRoot("test/browser/pages/run.ts");
    const child = spawn(process.execPath, [driver, server.url, ...process.argv.slice(2)], {
      stdio: "inherit",
    });
    process.exitCode = await new Promise<number>((resolve) =>
      child.on("close", (code) => resolve(code ?? 1))
    );
    if (!await server.isIdle()) {
      console.log("the server still has sequences after all answers were stopped or had ended");
      process.exitCode = 1;
    }
  } finally {
    const { code } = await server.stop();
    if (code !== 0) {
      console.log(`the server ended with ${code}`);
      process.exitCode = 1;
    }
  }
} finally {
  workshop.remove();
}
