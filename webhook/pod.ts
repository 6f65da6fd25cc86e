import * as z from 'zod';

const container = z.object({
  name: z.string(),
  image: z.string().nullish(),
  imagePullPolicy: z.string().nullish(),
});

const volume = z.object({
  name: z.string(),
  image: z.object({ reference: z.string().nullish(), pullPolicy: z.string().nullish() }).nullish(),
});

const requirement = z.object({
  key: z.string(),
  operator: z.string(),
  values: z.array(z.string()).nullish(),
});

const nodeSelectorTerm = z.object({ matchFields: z.array(requirement).nullish() });

const owner = z.object({
  apiVersion: z.string(),
  kind: z.string(),
  name: z.string().nullish(),
  uid: z.string().nullish(),
  controller: z.boolean().nullish(),
});

/** What the webhook looks at in a Pod; whatever else it has is left alone. */
export const podSchema = z.object({
  metadata: z.object({
    name: z.string().nullish(),
    generateName: z.string().nullish(),
    namespace: z.string().nullish(),
    uid: z.string().nullish(),
    labels: z.record(z.string(), z.string()).nullish(),
    annotations: z.record(z.string(), z.string()).nullish(),
    ownerReferences: z.array(owner).nullish(),
  }),
  spec: z.object({
    nodeName: z.string().nullish(),
    nodeSelector: z.record(z.string(), z.string()).nullish(),
    affinity: z
      .object({
        nodeAffinity: z
          .object({
            requiredDuringSchedulingIgnoredDuringExecution: z
              .object({ nodeSelectorTerms: z.array(nodeSelectorTerm).nullish() })
              .nullish(),
          })
          .nullish(),
      })
      .nullish(),
    containers: z.array(container).nullish(),
    initContainers: z.array(container).nullish(),
    ephemeralContainers: z.array(container).nullish(),
    volumes: z.array(volume).nullish(),
  }),
});

export type Pod = z.output<typeof podSchema>;

/** Of annotations, what the webhook goes by; others may be as long as all the rest of a Pod. */
const KEPT_ANNOTATION = /^(?:weir\.dev|kubernetes\.io)\//;

/** What of a Pod is worth remembering. `undefined` for what is none. */
export function podToKeep(object: unknown): Pod | undefined {
  const pod = podSchema.safeParse(object).data;
  const annotations = pod?.metadata.annotations;
  if (pod === undefined || !annotations) return pod;
  const kept = Object.entries(annotations).filter(([key]) => KEPT_ANNOTATION.test(key));
  // Even none of them: that there are some is wanted for a patch.
  return { ...pod, metadata: { ...pod.metadata, annotations: Object.fromEntries(kept) } };
}

/** One place in a Pod where an image is named. */
export interface PodImage {
  /** By which it is found again, however the lists change: `containers/app`, `volumes/models`. */
  readonly key: string;
  /** Of the name itself (RFC 6901). */
  readonly pointer: string;
  readonly image: string;
  readonly pullPolicy: string;
  /** A volume's image cannot be changed once the Pod is there. */
  readonly isVolume: boolean;
}

const CONTAINERS = ['containers', 'initContainers'] as const;

/** The images of containers, init containers and image volumes. */
export function imagesOf({ spec }: Pod): readonly PodImage[] {
  const containers = CONTAINERS.flatMap((list) => imagesIn(list, spec[list] ?? []));
  const volumes = (spec.volumes ?? []).flatMap(({ name, image }, index): PodImage[] =>
    image?.reference
      ? [
          {
            key: `volumes/${name}`,
            pointer: `/spec/volumes/${index}/image/reference`,
            image: image.reference,
            pullPolicy: image.pullPolicy ?? '',
            isVolume: true,
          },
        ]
      : [],
  );
  return [...containers, ...volumes];
}

/** The images of ephemeral containers that the Pod before did not have. */
export function addedImages(pod: Pod, before: Pod): readonly PodImage[] {
  const known = new Set((before.spec.ephemeralContainers ?? []).map(({ name }) => name));
  return imagesIn('ephemeralContainers', pod.spec.ephemeralContainers ?? []).filter(
    ({ key }) => !known.has(key.slice(key.indexOf('/') + 1)),
  );
}

function imagesIn(list: string, containers: readonly z.output<typeof container>[]): readonly PodImage[] {
  return containers.flatMap(({ name, image, imagePullPolicy }, index): PodImage[] =>
    image
      ? [
          {
            key: `${list}/${name}`,
            pointer: `/spec/${list}/${index}/image`,
            image,
            pullPolicy: imagePullPolicy ?? '',
            isVolume: false,
          },
        ]
      : [],
  );
}
