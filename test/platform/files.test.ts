import { afterAll, expect, test } from "bun:test";
import {
  chmodSync,
  lstatSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { replaceText } from "../../src/platform/files.ts";
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
