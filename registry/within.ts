/** What the promise brings; `undefined` when it takes longer than this many milliseconds. */
export async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), milliseconds);
  return Promise.race([promise, late.promise]).finally(() => clearTimeout(timer));
}
