import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { fits, globExpression } from '../../webhook/glob.ts';

suite('a pattern of namespaces', () => {
  const patterns: Readonly<Record<string, { readonly fit: string[]; readonly unfit: string[] }>> = {
    'team-a': { fit: ['team-a'], unfit: ['team-', 'team-ab', 'a-team-a', ''] },
    'team-*': { fit: ['team-a', 'team-'], unfit: ['team', 'my-team-a'] },
    '*-private': { fit: ['a-private', 'a-private-private'], unfit: ['private', 'a-private-b'] },
    'a?c': { fit: ['abc', 'a-c'], unfit: ['ac', 'abbc'] },
    'a*b*c': { fit: ['abc', 'aabbcc', 'abcbc'], unfit: ['acb', 'abcd'] },
    '*ab*b': { fit: ['abb', 'aabab'], unfit: ['ab', 'aba'] },
    '*': { fit: ['', 'a'], unfit: [] },
    '**': { fit: ['', 'a'], unfit: [] },
    '?*': { fit: ['a', 'ab'], unfit: [''] },
    'a.c': { fit: ['a.c'], unfit: ['abc'] },
  };
  for (const [pattern, { fit, unfit }] of Object.entries(patterns))
    test(`${pattern} fits what it says, here and in an API server`, () => {
      const expression = new RegExp(globExpression(pattern));
      for (const text of [...fit, ...unfit]) {
        assert.equal(fits([pattern], text), fit.includes(text), text);
        assert.equal(expression.test(text), fit.includes(text), text);
      }
    });

  test('is one star for many', () => {
    assert.equal(globExpression('********-x'), '^.*-x$');
  });

  test('is looked for in no more steps than its length times that of the name', () => {
    const name = 'a'.repeat(63);
    for (const pattern of [`${'*'.repeat(61)}-x`, `${'*a'.repeat(31)}b`, `${'*?'.repeat(31)}b`]) {
      const found: unknown = runInNewContext(
        'fits([pattern], name)',
        { fits, pattern, name },
        { timeout: 5_000 },
      );
      assert.equal(found, false, pattern);
    }
  });
});
