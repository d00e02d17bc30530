import { describe, expect, test } from "bun:test";
import { formatTime } from "../../src/text/strftime.ts";

describe("a date", () => {
  test("keeps what it does not know, and counts from 12 at night", () => {
    const night = new Date(2023, 0, 1, 0, 5, 7);
    expect(formatTime(night, "%I:%M %p, day %j, %Q %-Q% %%d")).toBe(
      "12:05 AM, day 001, %Q %-Q% %d",
    );
    expect(formatTime(new Date(2024, 11, 31, 12), "%j %I %p")).toBe("366 12 PM");
  });

  test("has no zeros where a hyphen takes them away, and whole dates and times", () => {
    const early = new Date(2024, 6, 6, 4, 5, 9);
    expect(formatTime(early, "%-d %B %Y, %-m/%-e, %-I:%-M:%-S %-H, %-j")).toBe(
      "6 July 2024, 7/6, 4:5:9 4, 188",
    );
    expect(formatTime(early, "%F|%T|%R|%D|%c|%x|%X|%e|%Z%z")).toBe(
      "2024-07-06|04:05:09|04:05|07/06/24|Sat Jul  6 04:05:09 2024|07/06/24|04:05:09| 6|",
    );
  });
});
