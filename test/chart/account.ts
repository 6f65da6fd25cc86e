// A test's cluster as an account of it sees it.

import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { connectKubernetes, type Kubernetes } from '../../kubernetes/client.ts';
import type { ApiServer } from './api-server.ts';

/** The token of somebody who may do everything. */
export const ADMINISTRATOR = 'administrator';

/** A token of a service account. */
export async function tokenOf(api: ApiServer, namespace: string, account: string): Promise<string> {
  return (await api.kubectl('create', 'token', account, '--namespace', namespace)).trim();
}

/** The API for the owner of a token; what is connected from now on is that as well. */
export async function connectAs(token: string, api: ApiServer, scratch: string): Promise<Kubernetes> {
  const file = join(scratch, 'account.yaml');
  await copyFile(api.kubeconfig, file);
  await api.kubectl('--kubeconfig', file, 'config', 'set-credentials', 'administrator', '--token', token);
  process.env['KUBECONFIG'] = file;
  return connectKubernetes('test');
}
