import { UsageError } from '../process/lifecycle.ts';

/** Where the store is, as `--store s3://…` says it. Credentials are never part of it. */
export interface S3Location {
  readonly bucket: string;
  /** Begins every key of ours. Ends with a slash. */
  readonly prefix: string;
  /** `undefined`: as the environment or the SDK's shared configuration says. */
  readonly region: string | undefined;
  /** Origin of a server that is not AWS; `undefined`: AWS. */
  readonly endpoint: string | undefined;
  /** `true`: the bucket is named in the path; `false`: in the host name. */
  readonly pathStyle: boolean;
  /** PEM bundle to trust beside the system's. */
  readonly ca: string | undefined;
  /** Directory of a mounted Secret; `undefined`: the SDK's default chain. */
  readonly credentials: string | undefined;
}

const DEFAULT_PREFIX = 'weir/';
/** A key may have 1024 bytes, and the longest of ours has 672 behind the prefix. */
const MAX_PREFIX_LENGTH = 256;
const PARAMETERS = ['region', 'endpoint', 'pathStyle', 'ca', 'credentials'];
const FORM = 's3://BUCKET/PREFIX?region=…&endpoint=…&pathStyle=true&ca=FILE&credentials=DIR';

/** Whether the text is meant for {@link parseS3Location}. */
export function isS3Location(text: string): boolean {
  return text.startsWith('s3:');
}

/** @throws UsageError that names every problem, each with what to write instead. */
export function parseS3Location(text: string): S3Location {
  // Whatever a URL's user part or query holds is told to nobody: someone may have put a secret there.
  const shown = text.replace(/\?.*$/s, '').replace(/\/\/[^/]*@/, '//…@');
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || url.protocol !== 's3:' || url.hostname === '')
    throw new UsageError(`"${shown}" names no bucket; write ${FORM}`);

  const problems: string[] = [];
  if (url.username !== '' || url.password !== '')
    problems.push(
      'credentials do not belong into the URL, where every process listing shows them; give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or with credentials=DIR',
    );
  if (url.port !== '') problems.push('a bucket has no port; write the server as endpoint=http://HOST:PORT');
  if (url.hash !== '') problems.push('"#" ends a URL; write it as %23');
  const bucket = url.hostname;
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket) || bucket.includes('..'))
    problems.push(
      `"${bucket}" is no bucket's name; it has 3 to 63 lower-case letters, digits, dots and hyphens`,
    );

  const value = parametersOf(url, problems);
  const region = value('region');
  if (region !== undefined && !/^[a-z0-9-]+$/.test(region))
    problems.push(`"${region}" is no region; write one such as eu-central-1`);
  const pathStyle = value('pathStyle');
  if (pathStyle !== undefined && pathStyle !== 'true' && pathStyle !== 'false')
    problems.push(`pathStyle is "${pathStyle}"; write true or false`);
  const prefix = parsePrefix(url.pathname, problems);
  const endpoint = parseEndpoint(value('endpoint'), problems);

  if (problems.length > 0) throw new UsageError(`--store ${shown}: ${problems.join('; ')}`);
  return {
    bucket,
    prefix,
    // Servers other than AWS seldom have regions, but every signature names one.
    region: region ?? (endpoint === undefined ? undefined : 'us-east-1'),
    endpoint,
    pathStyle: pathStyle === 'true',
    ca: value('ca'),
    credentials: value('credentials'),
  };
}

function parametersOf(url: URL, problems: string[]): (name: string) => string | undefined {
  for (const name of new Set(url.searchParams.keys())) {
    if (!PARAMETERS.includes(name))
      problems.push(`"${name}" is not known; there are ${PARAMETERS.join(', ')}`);
    else if (url.searchParams.getAll(name).length > 1) problems.push(`${name} is given twice; leave one out`);
    else if (url.searchParams.get(name) === '')
      problems.push(`${name} is empty; give it a value or leave it out`);
  }
  return (name) => url.searchParams.get(name) ?? undefined;
}

function parsePrefix(path: string, problems: string[]): string {
  const text = path.replace(/^\/|\/$/g, '');
  if (text === '') return DEFAULT_PREFIX;
  const components = text.split('/');
  const wrong = components.some((one) => !/^[A-Za-z0-9._-]+$/.test(one) || /^\.{1,2}$/.test(one));
  if (wrong)
    problems.push(
      `"${text}" is no prefix; it has letters, digits, dots, hyphens and underscores, with single slashes between`,
    );
  if (text.length > MAX_PREFIX_LENGTH)
    problems.push(`the prefix is longer than ${MAX_PREFIX_LENGTH} characters`);
  return `${text}/`;
}

function parseEndpoint(text: string | undefined, problems: string[]): string | undefined {
  if (text === undefined || text === '') return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    problems.push('endpoint is no URL of a server; write https://HOST or http://HOST:PORT');
    return undefined;
  }
  if (`${url.origin}/` !== url.href)
    problems.push(`endpoint is more than a server's origin; write ${url.origin}`);
  return url.origin;
}
