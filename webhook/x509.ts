import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  AuthorityKeyIdentifier,
  BasicConstraints,
  Certificate,
  ExtendedKeyUsage,
  Extension,
  Extensions,
  GeneralName,
  id_ce_authorityKeyIdentifier,
  id_ce_basicConstraints,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  id_ce_subjectAltName,
  id_ce_subjectKeyIdentifier,
  id_kp_serverAuth,
  KeyIdentifier,
  KeyUsage,
  KeyUsageFlags,
  Name,
  RelativeDistinguishedName,
  SubjectAlternativeName,
  SubjectKeyIdentifier,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
  Version,
} from '@peculiar/asn1-x509';
import type { Identity } from '../process/certificates.ts';

/** From when to when a certificate holds. */
export interface Period {
  readonly from: Date;
  readonly to: Date;
}

/** RFC 5758: a signature by an elliptic curve over SHA-256, without parameters. */
const ECDSA_WITH_SHA256 = '1.2.840.10045.4.3.2';
const COMMON_NAME = '2.5.4.3';

/** An authority of our own, which signs servers' certificates and nothing else (RFC 5280). */
export function makeAuthority(commonName: string, period: Period): Identity {
  const { publicKey, privateKey } = makeKeys();
  const name = nameOf(commonName);
  const cert = certify({
    subject: name,
    issuer: name,
    period,
    publicKey,
    signingKey: privateKey,
    extensions: [
      extension(id_ce_basicConstraints, new BasicConstraints({ cA: true, pathLenConstraint: 0 }), CRITICAL),
      extension(id_ce_keyUsage, new KeyUsage(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign), CRITICAL),
      extension(id_ce_subjectKeyIdentifier, new SubjectKeyIdentifier(keyIdentifier(publicKey))),
    ],
  });
  return { cert, key: privateKey };
}

/** A server's certificate for these DNS names. @throws Error when the authority is none. */
export function issue(authority: Identity, names: readonly [string, ...string[]], period: Period): Identity {
  const issuer = AsnConvert.parse(new X509Certificate(authority.cert).raw, Certificate).tbsCertificate;
  const issuerKey = Buffer.from(AsnConvert.serialize(issuer.subjectPublicKeyInfo));
  const { publicKey, privateKey } = makeKeys();
  const alternatives = names.map((dNSName) => new GeneralName({ dNSName }));
  const cert = certify({
    // The alternative names count; this one is for people, and has a limit of 64 characters.
    subject: nameOf('weir-webhook'),
    issuer: issuer.subject,
    period,
    publicKey,
    signingKey: authority.key,
    extensions: [
      extension(id_ce_basicConstraints, new BasicConstraints({ cA: false }), CRITICAL),
      extension(id_ce_keyUsage, new KeyUsage(KeyUsageFlags.digitalSignature), CRITICAL),
      extension(id_ce_extKeyUsage, new ExtendedKeyUsage([id_kp_serverAuth])),
      extension(id_ce_subjectAltName, new SubjectAlternativeName(alternatives)),
      extension(
        id_ce_authorityKeyIdentifier,
        new AuthorityKeyIdentifier({ keyIdentifier: new KeyIdentifier(keyIdentifier(issuerKey)) }),
      ),
    ],
  });
  return { cert, key: privateKey };
}

const CRITICAL = true;

interface Keys {
  /** SubjectPublicKeyInfo, as DER. */
  readonly publicKey: Buffer;
  /** PKCS #8, as PEM. */
  readonly privateKey: string;
}

function makeKeys(): Keys {
  return generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'der' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
}

interface Request {
  readonly subject: Name;
  readonly issuer: Name;
  readonly period: Period;
  readonly publicKey: Buffer;
  readonly signingKey: string;
  readonly extensions: Extension[];
}

function certify({ subject, issuer, period, publicKey, signingKey, extensions }: Request): string {
  const algorithm = new AlgorithmIdentifier({ algorithm: ECDSA_WITH_SHA256 });
  const tbsCertificate = new TBSCertificate({
    version: Version.v3,
    serialNumber: serialNumber(),
    signature: algorithm,
    issuer,
    validity: new Validity({ notBefore: period.from, notAfter: period.to }),
    subject,
    subjectPublicKeyInfo: AsnConvert.parse(publicKey, SubjectPublicKeyInfo),
    extensions: new Extensions(extensions),
  });
  const toSign = Buffer.from(AsnConvert.serialize(tbsCertificate));
  const signature = sign('sha256', toSign, createPrivateKey(signingKey));
  const certificate = new Certificate({
    tbsCertificate,
    signatureAlgorithm: algorithm,
    signatureValue: bytes(signature),
  });
  return new X509Certificate(Buffer.from(AsnConvert.serialize(certificate))).toString();
}

/** 16 random bytes of a positive number, without zeros before it. */
function serialNumber(): ArrayBuffer {
  const number = randomBytes(16);
  number[0] = ((number[0] ?? 0) & 0x7f) | 0x40;
  return bytes(number);
}

function nameOf(commonName: string): Name {
  const value = new AttributeValue({ utf8String: commonName });
  return new Name([new RelativeDistinguishedName([new AttributeTypeAndValue({ type: COMMON_NAME, value })])]);
}

function extension(extnID: string, value: object, critical = false): Extension {
  return new Extension({ extnID, critical, extnValue: new OctetString(AsnConvert.serialize(value)) });
}

/** RFC 7093: any hash of the key will do, as long as authority and certificate have the same. */
function keyIdentifier(publicKey: Buffer): ArrayBuffer {
  return bytes(createHash('sha256').update(publicKey).digest().subarray(0, 20));
}

function bytes(buffer: Buffer): ArrayBuffer {
  return new Uint8Array(buffer).buffer;
}
