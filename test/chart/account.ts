// A test's cluster as an account of it sees it.

import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { KubeConfig } from '@kubernetes/client-node';
import type { Kubernetes } from '../../kubernetes/api.ts';
import { connectKubernetes } from '../../kubernetes/client.ts';
import type { ApiServer } from './api-server.ts';

/** The token of somebody who may do everything. */
export const ADMINISTRATOR = 'administrator';

/** Makes an object as somebody who may do everything. */
export async function createObject(api: ApiServer, scratch: string, object: object): Promise<void> {
  const file = join(scratch, 'object.json');
  await writeFile(file, JSON.stringify({ apiVersion: 'v1', ...object }));
  await api.kubectl('create', '--filename', file);
}

/** A token of a service account. @param flags what it is bound to, and for how long. */
export async function tokenOf(
  api: ApiServer,
  namespace: string,
  account: string,
  ...flags: readonly string[]
): Promise<string> {
  return (await api.kubectl('create', 'token', account, '--namespace', namespace, ...flags)).trim();
}

/** The API as weir speaks to it, for the owner of a token; what is connected from now on is that as well. */
export async function connectAs(token: string, api: ApiServer, scratch: string): Promise<Kubernetes> {
  process.env['KUBECONFIG'] = await kubeconfigOf(token, api, scratch);
  return connectKubernetes('test');
}

/** The whole API for the owner of a token, as it is, whatever weir knows of it. */
export async function clientAs(token: string, api: ApiServer, scratch: string): Promise<KubeConfig> {
  const config = new KubeConfig();
  config.loadFromFile(await kubeconfigOf(token, api, scratch));
  return config;
}

async function kubeconfigOf(token: string, api: ApiServer, scratch: string): Promise<string> {
  const file = join(scratch, 'account.yaml');
  await copyFile(api.kubeconfig, file);
  await api.kubectl('--kubeconfig', file, 'config', 'set-credentials', 'administrator', '--token', token);
  return file;
}
