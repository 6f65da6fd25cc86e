import { CANARY_HOST } from '../oci/canary.ts';

/** Why a runtime did not get the canary, as far as its own words tell. */
export interface Cause {
  /** Whether it went to the canary's host itself: then it knows nothing of our files, which name the mirror only. */
  readonly isUnread: boolean;
  /** In one line. */
  readonly reason: string;
}

/** What is known of the runtime besides. */
export interface RuntimeSight {
  /** Its name, as CRI tells it. */
  readonly runtime: string;
  /** The mirror's URL in our files. */
  readonly mirror: string;
  /** The directory of our files, as the runtime knows it. */
  readonly certsDir: string;
  /** By which the running runtime goes; `undefined` when it does not tell. */
  readonly configPath: string | undefined;
}

/**
 * Reads the error of a pull. containerd wraps what Go's net/http says, and that names the URL that was asked:
 * `… failed to do request: Head "https://HOST/v2/…": dial tcp: lookup HOST on 10.0.0.10:53: no such host`.
 */
export function causeOf(error: string, sight: RuntimeSight): Cause {
  const text = error.replaceAll(/\s+/g, ' ').trim();
  const detail = detailOf(text);
  const asked = askedUrl(text);
  const isTold = isHost(asked, CANARY_HOST) || text.includes(`lookup ${CANARY_HOST}`);
  if (isTold || (asked === undefined && sight.configPath === ''))
    return {
      isUnread: true,
      reason: `${whyUnread(sight)} (${detail})`,
    };
  if (asked === undefined || !isHost(asked, new URL(sight.mirror).host))
    return { isUnread: false, reason: `the runtime did not pull through the mirror: ${detail}` };
  if (/\bproxyconnect\b/.test(text))
    return {
      isUnread: false,
      reason: `the runtime asks its HTTP proxy for the mirror: add ${asked.hostname} to its NO_PROXY (${detail})`,
    };
  if (/\b(?:x509|tls):/.test(text))
    return { isUnread: false, reason: `the runtime does not trust the mirror's certificate (${detail})` };
  return { isUnread: false, reason: `the runtime cannot use the mirror: ${detail}` };
}

function whyUnread(sight: RuntimeSight): string {
  if (sight.runtime === 'containerd') return `the runtime does not read hosts.toml: ${whyOtherHosts(sight)}`;
  if (sight.runtime === 'cri-o')
    return 'CRI-O does not go by the drop-in of weir: it reads registries.conf.d at a SIGHUP (the agent needs hostPID for that), by itself with auto_reload_registries, or at its next start';
  return `${sight.runtime} asks no mirror for the canary`;
}

function whyOtherHosts({ configPath, certsDir }: RuntimeSight): string {
  if (configPath === undefined)
    return `is its config_path ${certsDir}, and not a list of directories (containerd 2.2 and newer)?`;
  if (configPath === '') return `its config_path is empty; set it to ${certsDir} and restart it`;
  if (!configPath.split(':').includes(certsDir))
    return `its config_path is ${configPath}, and weir's files are in ${certsDir}`;
  return `its config_path is ${configPath}; its log says what is wrong with ${certsDir}/${CANARY_HOST}/hosts.toml`;
}

/** The URL of the request that failed, where the error tells it. */
function askedUrl(text: string): URL | undefined {
  const url = /"(https?:\/\/[^"\s]+)"|\b(https?:\/\/[^"\s]+?):? /i.exec(`${text} `);
  const found = url?.[1] ?? url?.[2] ?? '';
  return URL.canParse(found) ? new URL(found) : undefined;
}

function isHost(url: URL | undefined, host: string): boolean {
  return url?.host === host;
}

const MAX_DETAIL = 200;

/** What is at the end of the chain of errors, without what is another with each canary. */
function detailOf(text: string): string {
  const detail = text
    .replace(/^(?:rpc error: )?(?:code = \w+ desc = )?/, '')
    .replaceAll(/failed to (?:pull and unpack image|resolve reference|copy) "[^"]*": /g, '')
    .replaceAll(/failed to (?:resolve image|do request|pull image|copy): /g, '')
    .replaceAll(/\b(?:Head|Get) "[^"]*": /gi, '')
    .replaceAll(/[0-9a-f]{32,}/g, '…');
  return detail.length > MAX_DETAIL ? `${detail.slice(0, MAX_DETAIL)}…` : detail;
}
