#!/usr/bin/env node
import process from 'node:process';
import { Command, InvalidArgumentError, Option } from 'commander';
import { runProgram, UsageError, watchOutput } from '../process/lifecycle.ts';
import { createLogger, LOG_LEVELS, type Logger, type LogLevel } from '../process/log.ts';
import { defaultStateDirectory } from './default-state-directory.ts';
import type { InspectFlags, PlanFlags } from './node.ts';
import type { NodeAgentFlags } from './node-agent.ts';
import type { UninstallFlags } from './uninstall.ts';
import type { VerifyFlags } from './verify.ts';
import { VERSION } from './version.ts';
import type { WebhookFlags } from './webhook-flags.ts';

/**
 * The command. Each subcommand loads its own program, so that `weir config check` does not read the registry's
 * libraries.
 */
const weir = new Command('weir')
  .description(
    "Lets every node of a cluster pull its images through the cluster's own cache, without a change to any Pod.",
  )
  .version(VERSION)
  .showHelpAfterError('Run the command with --help to see what it takes.')
  .addOption(
    new Option('--log-level <level>', 'least level that is logged').choices([...LOG_LEVELS]).default('info'),
  )
  .enablePositionalOptions();

const CONFIG = [
  '--config <file>',
  'the configuration; it is watched, and an edit is in force within a second',
] as const;
const LISTEN = ['--listen <host:port>', 'address of the registry, /livez, /readyz and /metrics'] as const;
const STORE = [
  '--store <store>',
  'where content is kept: file:DIR, or s3://BUCKET/PREFIX?region=REGION (see docs/s3-layout.md)',
] as const;
const CONFIG_MAP = [
  '--config-map <namespace/name>',
  'the ConfigMap that holds the configuration, in a cluster; it is watched through the API',
] as const;
const CERTS_DIR = [
  '--certs-dir <dir>',
  "containerd's config_path: one directory a registry host",
  path,
] as const;
const HOST_ROOT = [
  '--host-root <dir>',
  "where the node's file system is mounted; the directories are its paths",
  path,
  '/',
] as const;
const MIRROR_CA = [
  '--mirror-ca <file>',
  'PEM of the authority that signs the certificate of --mirror https://HOST',
  path,
] as const;
const STATE_DIR = ['--state-dir <dir>', 'where originals of the node are kept', path] as const;
const NO_PREFIXES = [
  '--no-prefixes',
  'read every path as a name on Docker Hub, unless ?ns= says otherwise',
] as const;
const DOCKER_CONFIG = [
  '--docker-config <file>',
  "docker's config.json with the credentials that the configuration names; an edit is in force at once",
] as const;
const CA_DIR = ['--ca-dir <dir>', 'directory of the PEM bundles that the configuration names'] as const;

weir
  .command('standalone')
  .description('agent and registry in one process, with a store on disk: one machine without Kubernetes')
  .requiredOption(...CONFIG)
  .requiredOption('--data <dir>', 'the store, and what a restart needs')
  .requiredOption(...LISTEN)
  .requiredOption(...CERTS_DIR)
  .option(...STATE_DIR, defaultStateDirectory())
  .option(...NO_PREFIXES)
  .option(...CA_DIR)
  .option(...DOCKER_CONFIG)
  .action(async (options: StandaloneFlags) => {
    const { runStandalone } = await import('./standalone.ts');
    await run((stop, log) => runStandalone({ ...options, ...environment(), log, stop }));
  });

const registry = weir
  .command('registry')
  .description('the pull-through registry')
  .option(...CONFIG)
  .option(...CONFIG_MAP)
  .option(...LISTEN)
  .option(...STORE)
  .option(
    '--spool-dir <dir>',
    'for blobs on their way (default: in a file: store itself, else the temporary directory)',
  )
  .option('--cert-dir <dir>', 'tls.crt and tls.key, with which it then speaks TLS alone')
  .option(...NO_PREFIXES)
  .option(...CA_DIR)
  .option(...DOCKER_CONFIG)
  .action(async (given: Partial<RegistryFlags>) => {
    const { runRegistry } = await import('./registry.ts');
    await run((stop, log) => {
      if (given.configMap === undefined) needed(given.config, CONFIG);
      const wanted = {
        listen: needed(given.listen, LISTEN),
        store: needed(given.store, STORE),
      };
      return runRegistry({ prefixes: true, ...given, ...wanted, ...environment(), log, stop });
    });
  });

registry
  .command('scrub')
  .description(
    'compares every stored blob with its digest and removes the damaged, which are then fetched again',
  )
  .requiredOption(...STORE)
  .option('--dry-run', 'only tell; exit code 1 when there are any')
  .option(...CA_DIR)
  .action(async (options: { store: string; dryRun?: boolean; caDir?: string }) => {
    const { runScrub } = await import('./scrub.ts');
    await run((stop, log) => runScrub({ ...options, log, stop }));
  });

weir
  .command('agent')
  .description("writes containerd's hosts.toml for each upstream and keeps it so")
  .option(...CONFIG)
  .option(CERTS_DIR[0], `${CERTS_DIR[1]} (in a cluster: instead of what is found)`, path)
  .option(
    '--mirror <url>',
    'the registry, as the node reaches it; written literally. In a cluster also: service, nodePort',
  )
  .option(...STATE_DIR, defaultStateDirectory())
  .option('--once', 'write and exit: 0 when every file is as it is to be')
  .option('--listen <host:port>', 'address of /livez, /readyz and /metrics')
  .optionsGroup('In a cluster:')
  .option(...CONFIG_MAP)
  .option('--node <name>', 'the node that is labelled')
  .option(...HOST_ROOT)
  .option('--daemon-set <namespace/name>', 'its own; once that is deleted, the node is restored at the end')
  .option('--registry-service <namespace/name>', "the registry's Service, with a port named registry")
  .option('--door <host:port>', 'address on the node from which pulls are forwarded to ready replicas')
  .option('--replica <host:port>', 'one replica, instead of --registry-service; may be repeated', repeated)
  .option(
    '--registry-ca <file>',
    'PEM of the authorities that sign the certificates of replicas, which then speak TLS; an edit is in force in seconds',
    path,
  )
  .option(...MIRROR_CA)
  .option('--host-ip <address>', "the node's address, for --mirror nodePort")
  .option('--cri-socket <path>', "the runtime's, a path of the node, instead of what is found")
  .option(
    '--configure-runtime',
    "set config_path in the runtime's configuration where it is missing, and restart it",
  )
  .option('--lease <namespace/name>', 'which one node at a time has while it does that')
  .action(async (given: Partial<AgentFlags & NodeAgentFlags> & { stateDir: string; hostRoot: string }) => {
    if (given.configMap === undefined) {
      const { runAgent } = await import('./agent.ts');
      await run((stop, log) => {
        refuseClusterFlags(given);
        const config = needed(given.config, CONFIG);
        const certsDir = needed(given.certsDir, CERTS_DIR);
        const mirror = needed(given.mirror, ['--mirror <url>', '']);
        return runAgent({ ...given, config, certsDir, mirror, log, stop });
      });
      return;
    }
    const { configMap } = given;
    const { runNodeAgent } = await import('./node-agent.ts');
    await run((stop, log) => {
      const node = needed(given.node, ['--node <name>', '']);
      const daemonSet = needed(given.daemonSet, ['--daemon-set <namespace/name>', '']);
      const listen = needed(given.listen, LISTEN);
      return runNodeAgent({ ...given, configMap, node, daemonSet, listen, log, stop });
    });
  });

weir
  .command('webhook')
  .description('rewrites images of Pods, where the runtime of their node cannot be told of the mirror')
  .requiredOption(...CONFIG_MAP)
  .requiredOption('--listen <host:port>', 'address that the API server asks')
  .requiredOption('--status <host:port>', 'address of /livez, /readyz and /metrics')
  .requiredOption('--registry <url>', 'the registry, as the webhook reaches it')
  .option('--registry-ca <file>', 'PEM of the authorities that sign the certificate of an https one', path)
  .requiredOption(
    '--rewrite-to <host:port>',
    'the registry, as nodes reach it; rewritten images begin with it',
  )
  .option('--agent-port <port>', 'of every node, where its agent tells how it is', '5701')
  .requiredOption('--service <namespace/name>', 'its own Service, by which the API server finds it')
  .option('--service-port <port>', 'of that Service', '443')
  .requiredOption(
    '--cluster-role <name>',
    'what its registration at the API server belongs to, and goes with',
  )
  .requiredOption('--lease <name>', 'by which its replicas agree on one that registers them')
  .requiredOption('--secret <name>', 'where its replicas share their certificates')
  .option('--cert-dir <dir>', 'tls.crt, tls.key and ca.crt of somebody else, instead')
  .option('--fallback-node-selector <selector>', 'nodes without an agent that are rewritten for as well')
  .action(async (options: WebhookFlags) => {
    const { runWebhook } = await import('./webhook.ts');
    await run((stop, log) => runWebhook({ ...options, log, stop }));
  });

weir
  .command('uninstall')
  .description('takes the agents out of a cluster, each of which restores its node, and waits for that')
  .requiredOption('--daemon-set <namespace/name>', "the agents'")
  .option(
    '--webhook <namespace/name>',
    "the webhook's Deployment, which is taken away first, with the registrations of its name",
  )
  .option('--timeout <seconds>', 'how long to wait', seconds, 120)
  .action(async (options: UninstallFlags) => {
    const { runUninstall } = await import('./uninstall.ts');
    await run((stop, log) => runUninstall({ ...options, log, stop }));
  });

weir
  .command('verify')
  .description('has every node of a cluster pull an image, and tells whether it came through the mirror')
  .requiredOption('--daemon-set <namespace/name>', "the agents'")
  .requiredOption('--image <reference>', 'an image of a configured upstream')
  .option('--metrics-port <port>', "of the agents' /metrics", '5701')
  .option('--timeout <seconds>', 'how long to wait for all nodes', seconds, 120)
  .action(async (options: VerifyFlags) => {
    const { runVerify } = await import('./verify.ts');
    await run((stop, log) => runVerify({ ...options, log, stop }));
  });

weir
  .command('rollback')
  .description('restores what was there before the agent, byte for byte; harmless to run twice')
  .option(CERTS_DIR[0], `${CERTS_DIR[1]} (default: every one that weir wrote to, and what is found)`, path)
  .option(...STATE_DIR, defaultStateDirectory())
  .option(...HOST_ROOT)
  .action(async (options: RollbackFlags) => {
    const { runRollback } = await import('./agent.ts');
    await run((_, log) => runRollback({ ...options, log }));
  });

const node = weir
  .command('node')
  .description('looks at a node: its runtime, and what would be written there; changes nothing');
node
  .command('inspect')
  .description('shows the runtime, where it reads hosts.toml files, and whether weir can configure it')
  .option(...HOST_ROOT)
  .option('--json', 'for programs')
  .action(async (options: InspectFlags) => {
    const { inspectNode } = await import('./node.ts');
    await run(() => inspectNode(options));
  });
node
  .command('plan')
  .description('shows the exact difference that the agent would make to the files of the node')
  .option('--config <file>', 'the configuration')
  .option('--config-map <namespace/name>', 'the ConfigMap that holds the configuration, in a cluster')
  .requiredOption('--mirror <url>', 'the registry, or the door, as the node reaches it')
  .option(...MIRROR_CA)
  .option(...HOST_ROOT)
  .option(CERTS_DIR[0], `${CERTS_DIR[1]} (default: what the runtime's configuration says)`, path)
  .option(...STATE_DIR, defaultStateDirectory())
  .option(
    '--configure-runtime',
    "with what the agent's flag of this name does to the runtime's configuration",
  )
  .action(async (options: PlanFlags) => {
    const { planOfNode } = await import('./node.ts');
    await run((_, log) => planOfNode({ ...options, log }));
  });

const config = weir.command('config').description('looks at a configuration without running anything');
config
  .command('check')
  .argument('<file>', 'the configuration')
  .description('reports every problem with its line and remedy; exit code 0, or 2 when it would be refused')
  .action(async (file: string) => {
    const { checkConfig } = await import('./config.ts');
    await run(() => checkConfig(file));
  });
config
  .command('routes')
  .argument('<file>', 'the configuration')
  .description('shows what becomes of pulls from each registry host')
  .action(async (file: string) => {
    const { showRoutes } = await import('./config.ts');
    await run(() => showRoutes(file));
  });

// Wrong use is exit code 2, as for a configuration that is refused; --help and --version are not wrong.
for (const command of [weir, ...weir.commands, ...registry.commands, ...node.commands, ...config.commands])
  command.exitOverride((error) => {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
    throw error;
  });

export interface StandaloneFlags {
  readonly config: string;
  readonly data: string;
  readonly listen: string;
  readonly certsDir: string;
  readonly stateDir: string;
  readonly prefixes: boolean;
  readonly caDir?: string;
  readonly dockerConfig?: string;
}

export interface RegistryFlags {
  readonly config?: string;
  readonly configMap?: string;
  readonly listen: string;
  readonly store: string;
  readonly spoolDir?: string;
  readonly certDir?: string;
  readonly prefixes: boolean;
  readonly caDir?: string;
  readonly dockerConfig?: string;
}

export interface AgentFlags {
  readonly config: string;
  readonly certsDir: string;
  readonly stateDir: string;
  readonly mirror: string;
  readonly once?: boolean;
  readonly listen?: string;
}

export interface RollbackFlags {
  readonly certsDir?: string;
  readonly stateDir: string;
  readonly hostRoot: string;
}

async function run(program: (stop: AbortSignal, log: Logger) => Promise<void>): Promise<void> {
  const { logLevel } = weir.opts<{ logLevel: LogLevel }>();
  await runProgram((stop) => program(stop, createLogger(logLevel, process.stderr.isTTY)));
}

/** A flag of a command that has subcommands, which do without it. @throws UsageError when it is missing. */
function needed(value: string | undefined, [flag]: readonly [flag: string, ...unknown[]]): string {
  if (value === undefined) throw new UsageError(`required option '${flag}' not specified`);
  return value;
}

/** @throws UsageError when a flag is given that means nothing without a ConfigMap. */
function refuseClusterFlags(given: Partial<NodeAgentFlags>): void {
  const { node, daemonSet, registryService, replica, registryCa, door, mirrorCa, hostIp } = given;
  const { criSocket, hostRoot, lease, configureRuntime } = given;
  const flags = {
    '--node': node,
    '--daemon-set': daemonSet,
    '--registry-service': registryService,
    '--replica': replica,
    '--registry-ca': registryCa,
    '--door': door,
    '--mirror-ca': mirrorCa,
    '--host-ip': hostIp,
    '--cri-socket': criSocket,
    '--lease': lease,
    '--configure-runtime': configureRuntime,
    '--host-root': hostRoot === '/' ? undefined : hostRoot,
  };
  for (const [flag, value] of Object.entries(flags))
    if (value !== undefined)
      throw new UsageError(`${flag} is for an agent of a cluster, which has --config-map`);
}

function repeated(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, text];
}

/** What a variable of a script left empty is no place. */
function path(text: string): string {
  if (text === '') throw new InvalidArgumentError('It is empty: give a path.');
  return text;
}

/** Reads `90` or `90s`. */
function seconds(text: string): number {
  const [, digits] = /^(\d{1,5})s?$/.exec(text) ?? [];
  if (digits === undefined) throw new InvalidArgumentError('Give a number of seconds.');
  return Number(digits);
}

/** What the cluster tells a Pod: the address of its API server, which no upstream may lead to. */
function environment(): { apiServers: readonly string[] } {
  const host = process.env['KUBERNETES_SERVICE_HOST'];
  return { apiServers: host === undefined ? [] : [host] };
}

watchOutput();
await weir.parseAsync().catch((error: unknown) => {
  if (!(error instanceof Error) || error.name !== 'CommanderError') throw error;
});
