package sig

import "crypto/sha256"

// Domain keeps one kind of signed or hashed bytes from being taken for another. Every domain of
// the network is listed here and nowhere else.
type Domain string

// The domains. Those marked "anchored" are judged by a chain and carry its anchor; the others
// carry none.
const (
	DomainAccount     Domain = "ucn/account/v1"     // account id of a first key set
	DomainTransaction Domain = "ucn/transaction/v1" // anchored; transaction id
	DomainEscrow      Domain = "ucn/escrow/v1"      // escrow id
	DomainHeader      Domain = "ucn/header/v1"      // anchored; header hash
	DomainLease       Domain = "ucn/lease/v1"       // anchored; lease id, agent's signature
	DomainNote        Domain = "ucn/note/v1"        // anchored; agent's signature
	DomainNoteAck     Domain = "ucn/note-ack/v1"    // anchored; ack key's countersignature
	DomainAccept      Domain = "ucn/accept/v1"      // anchored; lease id
	DomainReject      Domain = "ucn/reject/v1"      // anchored; lease id and evidence
	DomainSpend       Domain = "ucn/spend/v1"       // anchored; a session key's order
	DomainRecovery    Domain = "ucn/recovery/v1"    // anchored; a recovery set's intent

	DomainBody             Domain = "ucn/body/v1"              // body hash
	DomainBlockCertificate Domain = "ucn/block-certificate/v1" // parent certificate hash
	DomainValidators       Domain = "ucn/validators/v1"        // validator set hash
	DomainWitness          Domain = "ucn/witness/v1"           // signatures of a transaction
	DomainChain            Domain = "ucn/chain/v1"             // id of a side chain

	DomainToken       Domain = "ucn/token/v1"       // access token
	DomainCertificate Domain = "ucn/certificate/v1" // instance certificate
	DomainJob         Domain = "ucn/job/v1"         // revision of a job
	DomainEvent       Domain = "ucn/event/v1"       // event envelope
	DomainRequest     Domain = "ucn/request/v1"     // request on the bus
	DomainReply       Domain = "ucn/reply/v1"       // reply on the bus
	DomainOrigin      Domain = "ucn/origin/v1"      // where a gateway's caller comes from
	DomainBroker      Domain = "ucn/broker/v1"      // nonce of a broker, by an instance
	DomainFaucet      Domain = "ucn/faucet/v1"      // faucet request
	DomainBackup      Domain = "ucn/backup/v1"      // new event epoch after a restore
)

// MaxDomain bounds the length of a domain, which the preimage holds in one byte.
const MaxDomain = 255

// AnchorSize is the length of an Anchor in bytes.
const AnchorSize = 32

// Anchor ties signed bytes to one chain: SHA-256(chain id || canonical genesis).
type Anchor [AnchorSize]byte

// HashSize is the length of every hash of the chain in bytes.
const HashSize = sha256.Size

// AppendPreimage appends len(domain) || domain || anchor || body to dst. The length is one byte;
// anchor is empty or the 32 bytes of an Anchor. A domain longer than MaxDomain panics.
func AppendPreimage(dst []byte, domain Domain, anchor, body []byte) []byte {
	if len(domain) == 0 || len(domain) > MaxDomain {
		panic("sig: domain of impossible length")
	}
	if len(anchor) != 0 && len(anchor) != AnchorSize {
		panic("sig: an anchor is empty or 32 bytes")
	}
	dst = append(dst, byte(len(domain)))
	dst = append(dst, domain...)
	dst = append(dst, anchor...)
	return append(dst, body...)
}

// Preimage returns the bytes that are signed: len(domain) || domain || anchor || body.
func Preimage(domain Domain, anchor, body []byte) []byte {
	size := 1 + len(domain) + len(anchor) + len(body)
	return AppendPreimage(make([]byte, 0, size), domain, anchor, body)
}

// Hash returns the SHA-256 of the preimage, the id of what is signed.
func Hash(domain Domain, anchor, body []byte) [HashSize]byte {
	var room [256]byte
	h := sha256.New()
	h.Write(AppendPreimage(room[:0], domain, anchor, nil))
	h.Write(body)
	var sum [HashSize]byte
	h.Sum(sum[:0])
	return sum
}
