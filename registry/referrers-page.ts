/**
 * Where a list of referrers goes on, as the path and query below the repository; `undefined` on its last page.
 *
 * "A `Link` header MUST be included in the response when the descriptor list cannot be returned in a single
 * manifest" (OCI distribution specification, "Listing Referrers"). The link is followed within the same list only:
 * whatever else it may lead to was not asked for, and would be read with the authorization for this repository.
 *
 * @throws Error when it leads to anywhere else.
 */
export function nextPage(
  link: string | undefined,
  page: URL,
  list: `referrers/${string}`,
): `referrers/${string}` | undefined {
  const found = /<([^<>]*)>\s*;[^<>]*?\brel\s*=\s*"?next"?(?=[\s;,]|$)/i.exec(link ?? '')?.[1];
  if (found === undefined) return undefined;
  const next = URL.canParse(found, page.href) ? new URL(found, page) : undefined;
  if (next?.origin !== page.origin || unescaped(next.pathname) !== unescaped(page.pathname))
    throw new Error('its list of referrers goes on at another place');
  return `${list}${next.search}`;
}

/** The colon of a digest is written either way. */
function unescaped(pathname: string): string {
  return pathname.replaceAll(/%3a/gi, ':');
}
