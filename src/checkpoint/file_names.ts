/** How the files of weights are called. @module */

/** The file with all weights, where it is one. */
export const SINGLE = "model.safetensors";
/** What says in which file each weight lies, where they are several. */
export const INDEX = "model.safetensors.index.json";
