/**
 * Gives a chunk's memory back at once. Left to the garbage collector, the 64 KiB that Node allocates for each read of
 * a socket make it run 60 times a GiB, on every thread that it has. A chunk that is the whole of its memory is
 * nobody else's: what shares its memory with others, such as the rest of an answer's head, is left alone.
 */
export function releaseChunk({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && !buffer.detached && byteLength === buffer.byteLength)
    buffer.transfer(0);
}
