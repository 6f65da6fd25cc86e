import { createHash } from 'node:crypto';
import type { Logger } from 'pino';
import type { Kubernetes } from './api.ts';
import { apiProblem, type ObjectName, statusOf } from './client.ts';

/** What an Event is about: an object of a namespace, or a node. */
export type EventSubject =
  | ({ readonly kind: 'ConfigMap' } & ObjectName)
  | { readonly kind: 'Node'; readonly name: string };

export interface EventReport {
  readonly subject: EventSubject;
  readonly type: 'Normal' | 'Warning';
  /** In upper camel case, for machines (`ConfigRefused`). */
  readonly reason: string;
  readonly message: string;
  /** The program (`weir-registry`). */
  readonly reporter: string;
}

/** The API refuses longer notes (k8s.io/api/events/v1, Event.note). */
const MAX_MESSAGE = 1_000;
/** Events of nodes, which have no namespace, are looked for here. */
const NODE_EVENTS_NAMESPACE = 'default';
/** With a dot and the id behind it, the longest that a name may be. */
const MAX_SUBJECT = 236;

/**
 * Tells of something under `kubectl describe` and `kubectl get events`. Replicas that tell of the same thing within an
 * hour make one Event, which has the time of the last. Failing to tell is logged and is no error.
 */
export async function reportEvent(kubernetes: Kubernetes, report: EventReport, log: Logger): Promise<void> {
  const { subject, type, reason, reporter } = report;
  const namespace = subject.kind === 'Node' ? NODE_EVENTS_NAMESPACE : subject.namespace;
  const message = report.message.slice(0, MAX_MESSAGE);
  const now = new Date().toISOString();
  const hour = now.slice(0, 13);
  const id = createHash('sha256').update(`${hour}\0${reason}\0${message}`).digest('hex').slice(0, 16);
  const name = `${subject.name.slice(0, MAX_SUBJECT).replace(/[.-]+$/, '')}.${id}`;
  try {
    await kubernetes.create(
      'events',
      {
        metadata: { name, namespace },
        involvedObject:
          subject.kind === 'Node'
            ? { kind: 'Node', name: subject.name, uid: subject.name, apiVersion: 'v1' }
            : { kind: subject.kind, name: subject.name, namespace, apiVersion: 'v1' },
        type,
        reason,
        message,
        source: { component: reporter },
        reportingComponent: reporter,
        firstTimestamp: now,
        lastTimestamp: now,
        count: 1,
      },
      namespace,
    );
  } catch (error) {
    const failed = (cause: unknown): void =>
      log.warn({ err: apiProblem(`report ${reason}`, cause) }, message);
    if (statusOf(error) !== 409) failed(error);
    else
      await kubernetes.patch('events', { namespace, name }, { merge: { lastTimestamp: now } }).catch(failed);
  }
}
