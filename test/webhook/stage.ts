import { EventEmitter, on } from 'node:events';
import { pino } from 'pino';
import * as z from 'zod';
import { parseConfig } from '../../config/parse.ts';
import { createMetrics } from '../../process/metrics.ts';
import { Admission } from '../../webhook/admission.ts';
import type { AdmissionRequest, Answer } from '../../webhook/admission-review.ts';
import { DecisionCounter } from '../../webhook/decision-counter.ts';
import { KnownNames } from '../../webhook/known-names.ts';
import type { Found } from '../../webhook/manifest-probe.ts';
import type { ManifestPlace, RegistryPlace } from '../../webhook/rewrite.ts';
import { applyPatch } from './json-patch.ts';
import { ScriptedCluster } from './scripted-cluster.ts';

export const REGISTRY: RegistryPlace = { url: 'http://weir.weir.svc:5000', rewriteTo: '127.0.0.1:5700' };
export const CONFIG = `
upstreams:
  docker.io: {}
  quay.io: {}
  registry.k8s.io: {}
  gcr.io: { mirror: https://mirror.example/gcr, via: node }
  plain.io: { mirror: "http://mirror.example", via: node }
`;

const operationSchema = z.object({
  op: z.enum(['test', 'add', 'replace', 'remove']),
  path: z.string(),
  value: z.unknown(),
});

const annotationsSchema = z.record(z.string(), z.string());
const podSchema = z.looseObject({
  metadata: z.record(z.string(), z.unknown()).optional(),
  spec: z.looseObject({ containers: z.array(z.looseObject({ name: z.string(), image: z.string() })) }),
});

export type Pod = z.output<typeof podSchema>;

/** The webhook's decisions in a cluster of which a test says everything; the mirror has what it is told to have. */
export class Stage {
  readonly cluster = new ScriptedCluster();
  readonly asked: ManifestPlace[] = [];
  readonly warmed: ManifestPlace[] = [];
  found: (place: ManifestPlace) => Found | Promise<Found> = () => 'there';
  readonly #metrics = createMetrics();
  readonly #lines = new EventEmitter();
  readonly #admission: Admission;
  readonly #names = new KnownNames();
  readonly #registry: RegistryPlace;
  #config: ReturnType<typeof parseConfig>['config'];

  constructor(
    yaml = CONFIG,
    options: { readonly budgetMs?: number; readonly registry?: RegistryPlace } = {},
  ) {
    this.#config = parseConfig(yaml).config;
    const { budgetMs, registry = REGISTRY } = options;
    this.#registry = registry;
    this.#noteNames();
    this.#admission = new Admission({
      config: () => this.#config,
      registry: () => this.#placed(),
      names: this.#names,
      ownNamespace: 'weir',
      cluster: this.cluster,
      probe: {
        look: async (place) => {
          this.asked.push(place);
          return this.found(place);
        },
        warm: (place) => this.warmed.push(place),
      },
      counter: new DecisionCounter(this.#metrics),
      log: pino({}, { write: (line: string) => this.#lines.emit('line', line) }),
      ...(budgetMs === undefined ? {} : { budgetMs }),
    });
  }

  configure(yaml: string): void {
    this.#config = parseConfig(yaml).config;
    this.#noteNames();
  }

  answer(request: AdmissionRequest): Promise<Answer> {
    return this.#admission.answer(request);
  }

  /** What becomes of a Pod that is made. */
  async create(pod: Pod, namespace = 'default'): Promise<Pod> {
    const { patch = [] } = await this.answer(request({ operation: 'CREATE', namespace, object: pod }));
    return patched(pod, patch);
  }

  /** What becomes of a Pod that is bound. */
  async bind(
    pod: Pod,
    node: string,
    { namespace = 'default', dryRun = false, isRemembered = false } = {},
  ): Promise<Pod> {
    const there = { ...pod, metadata: { name: 'pod', namespace, uid: 'u', ...pod.metadata } };
    this.cluster.pods.set('pod', there);
    if (isRemembered) this.cluster.remembered.set('pod', there);
    const object = { metadata: { name: 'pod', namespace, uid: 'u' }, target: { kind: 'Node', name: node } };
    await this.answer(request({ operation: 'CREATE', subResource: 'binding', namespace, object, dryRun }));
    return podSchema.parse(this.cluster.pods.get('pod'));
  }

  /** How often something was decided for this reason. */
  async count(reason: string): Promise<number> {
    return (await this.counted())[reason] ?? 0;
  }

  #placed(): RegistryPlace {
    return { ...this.#registry, rewriteTo: this.#config.rewriteTo ?? this.#registry.rewriteTo };
  }

  #noteNames(): void {
    this.#names.note({ config: this.#config, registry: this.#placed() });
  }

  /** How often something was decided, by reason. */
  async counted(): Promise<Record<string, number>> {
    const found = await this.#metrics.getSingleMetric('weir_webhook_decisions_total')?.get();
    const counts: Record<string, number> = {};
    for (const { labels, value } of found?.values ?? []) {
      const reason = String(labels['reason']);
      counts[reason] = (counts[reason] ?? 0) + value;
    }
    return counts;
  }

  /** The next line of the log that is like this. */
  async line(expression: RegExp): Promise<string> {
    for await (const [line] of on(this.#lines, 'line'))
      if (expression.test(String(line))) return String(line);
    throw new Error('the log has ended');
  }
}

export function request(more: Partial<AdmissionRequest>): AdmissionRequest {
  return {
    uid: 'r',
    resource: { resource: 'pods' },
    operation: 'CREATE',
    ...more,
  };
}

/** A Pod with one container of this image. */
export function podOf(image: string, spec: object = {}): Pod {
  return { metadata: {}, spec: { containers: [{ name: 'app', image }], ...spec } };
}

function patched(pod: Pod, patch: readonly object[]): Pod {
  const operations = patch.map((one) => operationSchema.parse(one));
  const result = applyPatch(pod, operations);
  if (result === undefined) throw new Error('a test of the patch fails');
  return podSchema.parse(result);
}

/** The image of every container, init container, ephemeral container and volume, in order. */
export function imagesIn(pod: Pod): string[] {
  return [...JSON.stringify(pod).matchAll(/"(?:image|reference)":"([^"]+)"/g)].map(([, image = '']) => image);
}

/** What the annotation says. */
export function originalsIn({ metadata }: Pod): unknown {
  const annotations = annotationsSchema.parse(metadata?.['annotations'] ?? {});
  const text = annotations['weir.dev/original-images'];
  return text === undefined ? undefined : JSON.parse(text);
}
