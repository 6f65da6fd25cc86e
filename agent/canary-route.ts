import { DIRECT_EGRESS } from '../config/config.ts';
import type { Route } from '../config/routing.ts';
import { CANARY_HOST } from '../oci/canary.ts';

/** How a node is to come to the canary: from our registry or not at all, so that its name is never looked up. */
export const CANARY_ROUTE: Route = {
  kind: 'registry',
  host: CANARY_HOST,
  upstream: {
    host: CANARY_HOST,
    endpoint: { origin: `https://${CANARY_HOST}`, repositoryPrefix: '' },
    via: 'registry',
    direct: false,
    egress: DIRECT_EGRESS,
    prefixes: [],
    tags: { ttl: 0, staleWhileRevalidate: 0, budget: 0 },
    timeouts: {},
    warm: [],
    trustedHosts: [],
  },
};
