/** Folders for any web server: what is in them. How their page runs is tested in test/browser/site. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bundle } from "../../src/bundle/bundle.ts";
import { indexHtml } from "../../src/bundle/page/index.ts";
import { cachedSource } from "../../src/engine/cached_source.ts";
import { folderSource } from "../../src/engine/folder_source.ts";
import { checkedSource, checkFiles } from "../../src/engine/integrity.ts";
import { partsSource } from "../../src/engine/parts_source.ts";
import { pathsIn } from "../../src/platform/folders.ts";
import { rejectionOf } from "../checkpoint/support.ts";
import { addUnknownOperator, CompileWorkshop, forgetHashes, LONG } from "../compile/support.ts";
import { hasSmallDisks, smallDisk } from "../support/disks.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

let made: Promise<{ folder: string; model: string }> | undefined;
/** The example in float32, whose weights lie in parts, bundled once. */
function site(): Promise<{ folder: string; model: string }> {
  return made ??= (async () => {
    const { output } = await workshop.compile(fromRoot("examples/tiny"), { values: "f32" });
    const folder = workshop.fresh("site");
    await bundle({ model: output, target: "static", output: folder });
    return { folder, model: output };
  })();
}

describe("a folder for any web server", () => {
  test("has all of the model's files, as its hashes say", async () => {
    const { folder, model } = await site();
    const parts = await partsSource(folderSource(join(folder, "model")));
    const { source, paths } = await checkedSource(parts);
    expect([...paths, "espalier.json"].sort()).toEqual(pathsIn(model).sort());
    await checkFiles(source, paths);
  }, LONG);

  test(
    "has the chat template that was put into the model's folder, and asks for nothing that was taken away",
    async () => {
      const { model } = await site();
      const changed = workshop.fresh("changed");
      cpSync(model, changed, { recursive: true });
      writeFileSync(join(changed, "chat_template.jinja"), "{{ messages[0].content }}");
      writeFileSync(join(changed, "notes.txt"), "for nobody's engine");
      rmSync(join(changed, "generation_config.json"));
      const output = workshop.fresh("changed-site");
      await bundle({ model: changed, target: "static", output });
      const at = folderSource(join(output, "model"));
      // As the page reads it.
      const fetch = async (url: string) => {
        const path = new URL(url).pathname.slice(1);
        return new Response(await at.read(path));
      };
      const { source, paths } = await checkedSource(
        await cachedSource("https://site.example/", { fetch, caches: null }),
      );
      expect(await source.has("generation_config.json")).toBe(false);
      expect(await source.has("chat_template.jinja")).toBe(true);
      expect(new TextDecoder().decode(await source.read("chat_template.jinja")))
        .toBe("{{ messages[0].content }}");
      expect(paths).toContain("chat_template.jinja");
      expect(paths).not.toContain("notes.txt");
    },
    LONG,
  );

  test("loads files that are there, by paths relative to wherever it lies", async () => {
    const { folder } = await site();
    const html = readFileSync(join(folder, "index.html"), "utf8");
    const loaded = [...html.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, url]) => url);
    // Before the page's own, whose absence it tells of.
    expect(loaded.filter((url) => url.endsWith(".js")).slice(-2))
      .toEqual(["page/unloaded.js", "page/page.js"]);
    for (const url of loaded) {
      expect(url).not.toMatch(/^\/|:/);
      expect(existsSync(join(folder, url))).toBe(true);
    }
    const page = readFileSync(join(folder, "page/page.js"), "utf8");
    expect(page).toContain('"worker.js"');
    // The worker asks for modules of Node only where there is Node.
    const worker = readFileSync(join(folder, "page/worker.js"), "utf8");
    expect(worker).not.toMatch(/^import\s*[{*\w][^;]*from\s*"node:/m);
    for (const build of ["simd", "relaxed", "relaxed-fused"]) {
      expect(existsSync(join(folder, `page/wasm/${build}.wasm`))).toBe(true);
    }
  }, LONG);

  test("has no file that hosts refuse for its size", async () => {
    const { folder } = await site();
    for (const path of pathsIn(folder)) {
      // The smallest limit: that of Cloudflare Pages.
      expect(readFileSync(join(folder, path)).length).toBeLessThan(25 << 20);
    }
  }, LONG);

  test("has a page of its own: no keys, no server, no script in it, a policy", () => {
    const html = indexHtml({ name: "a", bytes: 1 });
    expect(html).not.toMatch(/key-dialog|href="docs"|server/i);
    expect(html).not.toMatch(/<style|\sstyle=|\son[a-z]+=|<script(?![^>]* src=)/);
    expect(html).toMatch(/content-security-policy" content="default-src 'none'/);
    expect(html).not.toContain("unsafe");
  });

  test("names the model so that no name is markup", () => {
    const name = `"><script src=x>&amp;'`;
    const html = indexHtml({ name, bytes: 1, context: 64, kv: "int8" });
    const [, content] = /<meta name="espalier" content="([^"]*)">/.exec(html)!;
    expect(content).not.toContain("<");
    const text = content.replaceAll("&lt;", "<").replaceAll("&quot;", '"').replaceAll("&amp;", "&");
    expect(JSON.parse(text)).toEqual({ name, bytes: 1, context: 64, kv: "int8" });
  });
});

describe("a model that the page could not run", () => {
  test("is refused before anything is written: an operator, a context, damage", async () => {
    const { model } = await site();
    const output = workshop.fresh("refused");
    const refused = (options: { readonly model?: string; readonly context?: number }) =>
      rejectionOf(bundle({ model, target: "static", output, ...options }));
    expect(await refused({ context: 4096 })).toMatchObject({ code: "CONTEXT_OVERFLOW" });

    const other = workshop.fresh("other");
    cpSync(model, other, { recursive: true });
    writeFileSync(join(other, "onnx/model.onnx_data"), "damaged");
    expect(await refused({ model: other })).toMatchObject({ code: "INTEGRITY" });

    cpSync(model, other, { recursive: true });
    addUnknownOperator(other);
    forgetHashes(other);
    const error = await refused({ model: other });
    expect(error).toMatchObject({ code: "TARGET_UNFIT" });
    expect(error.message).toContain("--with-ort");
    expect(existsSync(output)).toBe(false);
  }, LONG);
});

describe("a folder that cannot be written", () => {
  test("is an error that names it, and leaves nothing", async () => {
    const { model } = await site();
    const file = join(workshop.folder(), "file");
    writeFileSync(file, "mine");
    const output = join(file, "site");
    const error = await rejectionOf(bundle({ model, target: "static", output }));
    expect(error).toMatchObject({ code: "FILE_UNWRITABLE" });
    expect(error.message).toContain(file);
    expect(readFileSync(file, "utf8")).toBe("mine");
  }, LONG);

  test.if(hasSmallDisks())("for the disk is full, leaves nothing on it", async () => {
    const { model } = await site();
    const disk = workshop.folder();
    const limited = smallDisk(disk, "6m")!;
    try {
      const options = { model, target: "static", output: join(disk, "site") } as const;
      expect(await rejectionOf(bundle(options))).toMatchObject({ code: "DISK_FULL" });
      expect(readdirSync(disk)).toEqual([]);
    } finally {
      limited.release();
    }
  }, LONG);
});
