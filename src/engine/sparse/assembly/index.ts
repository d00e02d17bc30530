/** What JavaScript calls. */
export { setUp } from "./control";
export { help, helpToEnd, post } from "./jobs";
export { measure, survey } from "./pack";
export { sketchMean } from "./pack_sketch";
export { isRight, race } from "./probe";
export { lead, run, work } from "./program";
