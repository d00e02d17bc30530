/**
 * Dates as Python writes them, for chat templates.
 * @module
 */

const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/**
 * Formats a local time as Python's `strftime` does in its C locale: models were trained on English
 * names, whatever the machine's language is.
 *
 * @param format Directives `%Y %y %m %d %e %b %B %a %A %H %I %M %S %p %j %F %T %R %D %c %x %X %Z %z %%`; others stay
 *   as they are. A hyphen, as in `%-d`, takes away zeros and spaces before a number.
 */
export function formatTime(time: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const hour = time.getHours();
  const written = (directive: string): string => {
    switch (directive) {
      case "%Y":
        return String(time.getFullYear());
      case "%y":
        return two(time.getFullYear() % 100);
      case "%m":
        return two(time.getMonth() + 1);
      case "%d":
        return two(time.getDate());
      case "%e":
        return String(time.getDate()).padStart(2, " ");
      case "%b":
        return MONTHS[time.getMonth()].slice(0, 3);
      case "%B":
        return MONTHS[time.getMonth()];
      case "%a":
        return DAYS[time.getDay()].slice(0, 3);
      case "%A":
        return DAYS[time.getDay()];
      case "%H":
        return two(hour);
      case "%I":
        return two(hour % 12 || 12);
      case "%M":
        return two(time.getMinutes());
      case "%S":
        return two(time.getSeconds());
      case "%p":
        return hour < 12 ? "AM" : "PM";
      case "%j":
        return String(dayOfYear(time)).padStart(3, "0");
      case "%F":
        return formatTime(time, "%Y-%m-%d");
      case "%T":
      case "%X":
        return formatTime(time, "%H:%M:%S");
      case "%R":
        return formatTime(time, "%H:%M");
      case "%D":
      case "%x":
        return formatTime(time, "%m/%d/%y");
      case "%c":
        return formatTime(time, "%a %b %e %T %Y");
      case "%Z":
      case "%z":
        // Python's `now` knows no zone.
        return "";
      case "%%":
        return "%";
      default:
        return directive;
    }
  };
  return format.replace(/%(-?)([a-zA-Z%])/g, (all, hyphen: string, letter: string) => {
    const directive = `%${letter}`;
    if (hyphen === "") return written(directive);
    return /^[ymdeHIMSj]$/.test(letter) ? String(Number(written(directive))) : all;
  });
}

/** 1 for the first of January. In UTC, where every day has 24 hours. */
function dayOfYear(time: Date): number {
  const day = Date.UTC(time.getFullYear(), time.getMonth(), time.getDate());
  return 1 + (day - Date.UTC(time.getFullYear(), 0, 1)) / 86_400_000;
}
