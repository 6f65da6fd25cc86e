import type { IncomingMessage, ServerResponse } from 'node:http';
import { formatReferrers, INDEX_TYPE } from '../oci/referrers.ts';
import { cacheStatus } from './answer.ts';
import type { ReferrersAnswer } from './referrers-cache.ts';

/**
 * Answers a list of referrers. "If filtering is requested and applied, the response MUST include a header
 * `OCI-Filters-Applied: artifactType` denoting that an `artifactType` filter was applied" (OCI distribution
 * specification, "Listing Referrers").
 */
export function answerReferrers(
  request: IncomingMessage,
  response: ServerResponse,
  answer: ReferrersAnswer,
  artifactType: string | undefined,
): void {
  const { referrers, origin, overdue } = answer;
  const wanted =
    artifactType === undefined
      ? referrers
      : referrers.filter((referrer) => referrer.artifactType === artifactType);
  const bytes = formatReferrers(wanted);
  response.writeHead(200, {
    'content-type': INDEX_TYPE,
    'content-length': bytes.length,
    ...(artifactType === undefined ? {} : { 'oci-filters-applied': 'artifactType' }),
    'cache-status': cacheStatus(origin, overdue),
  });
  response.end(request.method === 'HEAD' ? undefined : bytes);
}
