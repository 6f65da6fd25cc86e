import type { Kubernetes, ObjectOf } from './api.ts';
import { apiProblem, statusOf } from './client.ts';

/** What a Pod says of its image. */
export type Pulled =
  | { readonly kind: 'pulled' }
  | { readonly kind: 'waiting' }
  | { readonly kind: 'failed'; readonly reason: string };

/** A Pod whose only purpose is that the kubelet of a node pulls its image. */
export interface TrialPod {
  readonly namespace: string;
  readonly name: string;
}

/** @throws Error of the API. */
export async function createTrialPod(
  kubernetes: Kubernetes,
  options: {
    readonly namespace: string;
    readonly node: string;
    readonly image: string;
    /** With which it goes at the latest, should nobody delete it. */
    readonly owner: { readonly name: string; readonly uid: string };
  },
): Promise<TrialPod> {
  const { namespace, node, image, owner } = options;
  const trial: ObjectOf<'pods'> = {
    metadata: {
      generateName: 'weir-verify-',
      namespace,
      labels: { 'app.kubernetes.io/name': 'weir-verify' },
      ownerReferences: [{ apiVersion: 'apps/v1', kind: 'DaemonSet', ...owner }],
    },
    spec: {
      // Past the scheduler, so that a full or cordoned node is tried as well.
      nodeName: node,
      tolerations: [{ operator: 'Exists' }],
      restartPolicy: 'Never',
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 0,
      securityContext: { runAsNonRoot: true, runAsUser: 65_532, seccompProfile: { type: 'RuntimeDefault' } },
      containers: [
        {
          name: 'image',
          image,
          imagePullPolicy: 'Always',
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
        },
      ],
    },
  };
  try {
    const { metadata } = await kubernetes.create('pods', trial, namespace);
    return { namespace, name: metadata?.name ?? '' };
  } catch (error) {
    throw apiProblem(`make a Pod on ${node}`, error);
  }
}

/** @throws Error of the API. */
export async function pulledBy(kubernetes: Kubernetes, pod: TrialPod): Promise<Pulled> {
  try {
    return pulledOf(await kubernetes.read('pods', pod));
  } catch (error) {
    throw apiProblem(`read Pod ${pod.name}`, error);
  }
}

/** What kubelet says of a container whose image it could not get (k8s.io/kubernetes, pkg/kubelet/images/types.go). */
const NOT_PULLED = new Set([
  'ErrImagePull',
  'ImagePullBackOff',
  'InvalidImageName',
  'RegistryUnavailable',
  'SignatureValidationFailed',
  'ImageInspectError',
]);
/** Before it has tried. */
const NOT_YET = new Set(['ContainerCreating', 'PodInitializing']);

/** The image was pulled when the container has its ID, or could not be made or started: that comes after. */
export function pulledOf({ status }: ObjectOf<'pods'>): Pulled {
  const [container] = status?.containerStatuses ?? [];
  if (container !== undefined && container.imageID !== '') return { kind: 'pulled' };
  const waiting = container?.state?.waiting;
  if (waiting?.reason !== undefined && NOT_PULLED.has(waiting.reason))
    return { kind: 'failed', reason: waiting.message ?? waiting.reason };
  if (waiting?.reason !== undefined && !NOT_YET.has(waiting.reason)) return { kind: 'pulled' };
  if (status?.phase === 'Failed')
    return { kind: 'failed', reason: status.message ?? status.reason ?? 'the Pod failed' };
  return { kind: 'waiting' };
}

/** @throws Error of the API. */
export async function deleteTrialPod(kubernetes: Kubernetes, pod: TrialPod): Promise<void> {
  try {
    await kubernetes.remove('pods', pod, { gracePeriodSeconds: 0 });
  } catch (error) {
    if (statusOf(error) !== 404) throw apiProblem(`delete Pod ${pod.name}`, error);
  }
}
