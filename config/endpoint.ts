/** Where a registry's API answers: an origin, and a path that goes before every repository name there. */
export interface Endpoint {
  /** `https://HOST[:PORT]` or `http://HOST[:PORT]`, without a slash at its end. */
  readonly origin: string;
  /** `''`, or `dockerhub-proxy`: a mirror that keeps each upstream under a path of its own. */
  readonly repositoryPrefix: string;
}

const MAX_LENGTH = 1024;
const PATH = /^[a-z0-9]+(?:[._/-]+[a-z0-9]+)*$/;

/**
 * Reads `https://mirror.corp`, `mirror.corp`, `http://10.0.0.5:5000` or `https://harbor.corp/dockerhub-proxy`
 * (also written as `https://harbor.corp/v2/dockerhub-proxy`). Without a scheme it is https.
 *
 * @throws Error whose message says what is wrong with the text.
 */
export function parseEndpoint(text: string): Endpoint {
  if (text.length > MAX_LENGTH)
    throw new Error(`"${text.slice(0, 40)}…" is longer than ${MAX_LENGTH} characters`);
  const withScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `https://${text}`;
  if (!URL.canParse(withScheme) || /[\s\\]/.test(text)) throw new Error(`"${text}" is no URL`);
  const url = new URL(withScheme);
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    throw new Error(`"${text}" is neither http:// nor https://`);
  if (url.username !== '' || url.password !== '')
    throw new Error(`"${url.host}" carries a user name or password`);
  if (url.search !== '' || url.hash !== '') throw new Error(`"${text}" has a query or a fragment`);
  const path = url.pathname.replace(/^\/(?:v2(?:\/|$))?/, '').replace(/\/+$/, '');
  if (path !== '' && !PATH.test(path)) throw new Error(`"${url.pathname}" is no path of a repository`);
  return { origin: url.origin, repositoryPrefix: path };
}

/** The endpoint as one URL, as a person writes it. */
export function formatEndpoint(endpoint: Endpoint): string {
  return endpoint.repositoryPrefix === ''
    ? endpoint.origin
    : `${endpoint.origin}/${endpoint.repositoryPrefix}`;
}
