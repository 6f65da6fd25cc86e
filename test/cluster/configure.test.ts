// What runs on a node goes on while weir has its containerd restarted: real Pods, by runc, under a real systemd.

import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it, test } from 'node:test';
import { Client, credentials } from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';
import { pino } from 'pino';
import * as z from 'zod';
import { type Configured, configureRuntime } from '../../agent/configure/configure.ts';
import { askWorkload } from '../../agent/cri-workload.ts';
import { askCri } from '../../agent/runtimes/ask-cri.ts';
import { seeNode } from '../../agent/runtimes/see-node.ts';
import {
  configFile,
  missingSystemd,
  type SystemdNode,
  socket,
  startNode,
} from '../containerd/systemd-node.ts';
import { UpstreamRegistry } from '../support/upstream-registry.ts';
import { provide } from '../tools/cache.ts';
import { goModule } from '../tools/go-module.ts';
import { nodePrograms } from '../tools/node-programs.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { workloadImage } from './image.ts';
import { missing } from './tier.ts';

const CERTS = '/etc/containerd/certs.d';
const PODS = 3;
const log = pino({ level: 'silent' });
const { signal } = new AbortController();
const noSystemd = await missingSystemd();
const impossible = (await missing()) ?? noSystemd;

// In CI what was not tried must not look like what works.
if (noSystemd !== undefined)
  test('config_path is set', { skip: process.env['CI'] === 'true' ? false : noSystemd }, () => {
    assert.fail(noSystemd);
  });

describe('what runs on a node', { skip: impossible }, () => {
  let scratch: string;
  let registry: UpstreamRegistry;
  let image: string;
  let text: string;
  let unit: string;
  let node: SystemdNode;

  before(async () => {
    scratch = await makeScratch();
    registry = await UpstreamRegistry.start();
    registry.push('pause', '1', await workloadImage('configure', 'pause'));
    image = `${registry.host}/pause:1`;
    const programs = await nodePrograms();
    const usr = programs === undefined ? '/usr' : join(await provide(programs), 'usr');
    const shim = await provide(goModule('kubernetes'));
    const runc = join(scratch, 'runc');
    await writeFile(runc, runcScript(usr), { mode: 0o755 });
    text = configuration(image, runc);
    unit = `[Service]
Environment=PATH=${shim}:${usr}/sbin:${usr}/bin:/usr/sbin:/usr/bin
Environment=LD_LIBRARY_PATH=${usr}/lib/x86_64-linux-gnu:${usr}/lib/aarch64-linux-gnu
`;
  });
  after(async () => {
    await registry.stop();
    await removeScratch(scratch);
  });

  async function withPods(more: string, use: (running: readonly string[]) => Promise<void>): Promise<void> {
    node = await startNode('2.3', scratch, text);
    try {
      const directory = join(node.root, '/run/systemd/system/containerd.service.d');
      await mkdir(directory);
      await writeFile(join(directory, 'programs.conf'), unit + more);
      await node.inside('systemctl', 'daemon-reload');
      await node.inside('systemctl', 'restart', 'containerd');
      for (let pod = 0; pod < PODS; pod++) await runPod(node, `pod-${pod}`, image);
      const { running, notReady } = await workload();
      assert.equal(notReady, undefined);
      assert.equal(running.length, PODS * 2);
      await use(running);
    } finally {
      await node.stop();
    }
  }

  const workload = () => askWorkload({ root: node.root, socket }, { timeout: 5_000 });

  async function configure(): Promise<Configured> {
    const { root } = node;
    // This version has a default: there it is set as it would be where an earlier one has none.
    const sight = { ...(await seeNode({ root, askCri })), missingConfigPath: CERTS };
    const turn = { lost: signal, release: () => Promise.resolve(), abandon: () => undefined };
    const takeTurn = () => Promise.resolve(turn);
    const stateDir = '/run/weir/weir-state';
    return configureRuntime({ root, stateDir, version: '1', sight, takeTurn, log, signal, healthMs: 3_000 });
  }

  it('goes on over the restart', async () => {
    await withPods('', async (running) => {
      const before = await node.inside('pgrep', '--exact', 'workload');
      const run = await node.run();
      assert.deepEqual(await configure(), { kind: 'configured' });
      assert.notEqual(await node.run(), run);
      assert.deepEqual((await workload()).running.toSorted(), running.toSorted());
      assert.equal(await node.inside('pgrep', '--exact', 'workload'), before);
    });
  });

  it('and where it does not, that is seen, and no second restart is made', async () => {
    const killing = 'ExecStopPost=-/usr/bin/pkill -KILL --exact workload\n';
    await withPods(killing, async () => {
      const run = await node.run();
      const outcome = await configure();
      assert.equal(outcome.kind, 'failed');
      assert.match(
        'reason' in outcome ? outcome.reason : '',
        /^6 of 6 containers and sandboxes that ran before do not run/,
      );
      assert.equal(await readFile(join(node.root, configFile), 'utf8'), text);
      const second = await node.run();
      assert.notEqual(second, run);
      await configure();
      assert.equal(await node.run(), second);
    });
  });
});

function configuration(image: string, runc: string): string {
  return `version = 3
root = "/run/weir/root"
state = "/run/weir/state"
[plugins."io.containerd.internal.v1.opt"]
path = "/run/weir/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "${image}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "${runc}"
`;
}

/** The node's one hierarchy of control groups has no controllers, so there are no shares to set. */
function runcScript(usr: string): string {
  return `#!/bin/sh
for argument; do
  [ "$last" = --bundle ] && sed -i 's/"shares":[0-9]*//' "$argument/config.json"
  last=$argument
done
exec ${usr}/sbin/runc "$@"
`;
}

/** A Pod of one container, on the node's network. */
async function runPod({ root }: SystemdNode, name: string, image: string): Promise<void> {
  const client = new Client(`unix://${root}${socket}`, credentials.createInsecure());
  try {
    const namespaces = { network: 2, pid: 1, ipc: 2 };
    const linux = { security_context: { namespace_options: namespaces } };
    const sandbox = { metadata: { name, uid: name, namespace: 'test' }, linux };
    const made = await call(client, 'RunPodSandbox', { config: sandbox });
    const { pod_sandbox_id } = z.object({ pod_sandbox_id: z.string() }).parse(made);
    const config = { metadata: { name }, image: { image }, linux };
    const request = { pod_sandbox_id, config, sandbox_config: sandbox };
    const { container_id } = z
      .object({ container_id: z.string() })
      .parse(await call(client, 'CreateContainer', request));
    await call(client, 'StartContainer', { container_id });
  } finally {
    client.close();
  }
}

function call(client: Client, name: string, request: object): Promise<unknown> {
  const service = MESSAGES['runtime.v1.RuntimeService'];
  const method = service === undefined || 'format' in service ? undefined : service[name];
  if (method === undefined || typeof method === 'string') throw new Error(`CRI has no ${name}`);
  const { path, requestSerialize, responseDeserialize } = method;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, (error, answer) =>
      error === null ? resolve(answer) : reject(error),
    );
  });
}

/** Of CRI, what a kubelet runs a Pod with. */
const MESSAGES = fromJSON(
  {
    nested: {
      runtime: {
        nested: {
          v1: {
            nested: {
              RuntimeService: {
                methods: {
                  RunPodSandbox: {
                    requestType: 'RunPodSandboxRequest',
                    responseType: 'RunPodSandboxResponse',
                    comment: '',
                  },
                  CreateContainer: {
                    requestType: 'CreateContainerRequest',
                    responseType: 'CreateContainerResponse',
                    comment: '',
                  },
                  StartContainer: {
                    requestType: 'StartContainerRequest',
                    responseType: 'StartContainerResponse',
                    comment: '',
                  },
                },
              },
              RunPodSandboxRequest: { fields: { config: { type: 'PodSandboxConfig', id: 1 } } },
              RunPodSandboxResponse: { fields: { pod_sandbox_id: { type: 'string', id: 1 } } },
              CreateContainerRequest: {
                fields: {
                  pod_sandbox_id: { type: 'string', id: 1 },
                  config: { type: 'ContainerConfig', id: 2 },
                  sandbox_config: { type: 'PodSandboxConfig', id: 3 },
                },
              },
              CreateContainerResponse: { fields: { container_id: { type: 'string', id: 1 } } },
              StartContainerRequest: { fields: { container_id: { type: 'string', id: 1 } } },
              StartContainerResponse: { fields: {} },
              PodSandboxConfig: {
                fields: { metadata: { type: 'Metadata', id: 1 }, linux: { type: 'SandboxLinux', id: 8 } },
              },
              Metadata: {
                fields: {
                  name: { type: 'string', id: 1 },
                  uid: { type: 'string', id: 2 },
                  namespace: { type: 'string', id: 3 },
                },
              },
              SandboxLinux: { fields: { security_context: { type: 'SandboxSecurity', id: 2 } } },
              SandboxSecurity: { fields: { namespace_options: { type: 'Namespaces', id: 1 } } },
              ContainerConfig: {
                fields: {
                  metadata: { type: 'Metadata', id: 1 },
                  image: { type: 'ImageSpec', id: 2 },
                  linux: { type: 'ContainerLinux', id: 15 },
                },
              },
              ContainerLinux: { fields: { security_context: { type: 'ContainerSecurity', id: 2 } } },
              ContainerSecurity: { fields: { namespace_options: { type: 'Namespaces', id: 3 } } },
              ImageSpec: { fields: { image: { type: 'string', id: 1 } } },
              Namespaces: {
                fields: {
                  network: { type: 'int32', id: 1 },
                  pid: { type: 'int32', id: 2 },
                  ipc: { type: 'int32', id: 3 },
                },
              },
            },
          },
        },
      },
    },
  },
  { defaults: true, keepCase: true },
);
