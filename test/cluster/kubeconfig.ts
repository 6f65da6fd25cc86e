// Who may do what at the API server, by a token each.

import { randomBytes } from 'node:crypto';
import { API_PORT, CONTROL_PLANE, nodeName } from './layout.ts';

export const API_SERVER = `https://${CONTROL_PLANE}:${API_PORT}`;

export interface Account {
  readonly user: string;
  readonly groups: readonly string[];
  readonly token: string;
}

/** One account for each program that speaks to the API server, and for who looks at the cluster. */
export interface Accounts {
  readonly admin: Account;
  readonly controllers: Account;
  readonly scheduler: Account;
  readonly proxy: Account;
  /** One for each node, in their order. */
  readonly nodes: readonly Account[];
}

export function makeAccounts(nodes: number): Accounts {
  return {
    admin: account('admin', 'system:masters'),
    controllers: account('system:kube-controller-manager'),
    scheduler: account('system:kube-scheduler'),
    proxy: account('system:kube-proxy'),
    nodes: Array.from({ length: nodes }, (_, index) =>
      account(`system:node:${nodeName(index + 1)}`, 'system:nodes'),
    ),
  };
}

/** The accounts as the API server reads them: token, user, number, groups. */
export function tokenFile({ nodes, ...others }: Accounts): string {
  return [...Object.values(others), ...nodes]
    .map(({ token, user, groups }) => `${token},${user},${user},"${groups.join(',')}"\n`)
    .join('');
}

/** YAML, of which JSON is a part. */
export function kubeconfig({ token }: Account, ca: string): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server: API_SERVER, 'certificate-authority': ca } }],
    users: [{ name: 'test', user: { token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    'current-context': 'test',
  });
}

function account(user: string, ...groups: string[]): Account {
  return { user, groups, token: randomBytes(16).toString('hex') };
}
