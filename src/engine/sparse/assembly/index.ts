/** What JavaScript calls. */
export { setUp } from "./control";
export { measure, pack, packDense, survey } from "./pack";
export { isRight, race } from "./probe";
export { lead, run, work } from "./program";
