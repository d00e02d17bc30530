/**
 * Selection: the k-th smallest value without sorting all of them.
 * @module
 */

/**
 * Reorders `values` so that the element of rank `k` stands at index `k`, nothing larger before it and
 * nothing smaller after it (Hoare's FIND with a median of three; expected time linear).
 *
 * @param values Reordered in place.
 * @param k Rank from 0.
 * @returns The element of that rank.
 */
export function selectRank(values: Float32Array, k: number): number {
  let left = 0;
  let right = values.length - 1;
  while (right > left) {
    const middle = (left + right) >> 1;
    const a = values[left], b = values[middle], c = values[right];
    const pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
    let i = left;
    let j = right;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i <= j) {
        const swap = values[i];
        values[i++] = values[j];
        values[j--] = swap;
      }
    }
    if (k <= j) right = j;
    else if (k >= i) left = i;
    else break;
  }
  return values[k];
}
