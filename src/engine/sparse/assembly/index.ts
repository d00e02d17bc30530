/** What JavaScript calls. */
export { setUp } from "./control";
export { measure, pack, packDense, survey } from "./pack";
export { packSketch, sketchMean } from "./pack_sketch";
export { isRight, race } from "./probe";
export { lead, run, work } from "./program";
