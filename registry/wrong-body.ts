/** What came is not what was asked for: asking for the rest of it is of no use. */
export class WrongBody extends Error {
  override readonly name = 'WrongBody';
}
