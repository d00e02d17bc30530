/**
 * How dot products are made; the build script writes other values in for its other builds.
 *
 * Both ways give the same numbers. Where a processor has an instruction for four products a lane, the
 * fused form is one instruction; where it has not, the split form is three, and the fused one five.
 */
export const FUSED_DOT: bool = false;
