package state

import (
	"crypto/sha256"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

// Claim is one signature that a transaction rests on.
type Claim struct {
	Key       sig.PublicKey
	Preimage  []byte
	Signature sig.Signature
	// OK is set by whoever verified Signature of Preimage by Key, alone or in a batch. What is
	// not OK is verified again during execution, so leaving it false is safe and slow; setting
	// it wrongly breaks the chain.
	OK bool

	// operation is the index of the operation it stands in, accountClaim for the account's own.
	operation int
	role      role
}

const accountClaim = -1

// role tells the signatures of one operation apart.
type role uint8

const (
	roleAccount role = iota
	roleAgent
	roleAck
	roleRecovery
	roleSession
)

// Prepared is a transaction with its id and the signatures it rests on, those of its account
// first. Only Prepare makes one.
type Prepared struct {
	Tx     *tx.Transaction
	ID     tx.ID
	Claims []Claim

	// open is how many signatures inside operations no verdict on a claim can stand for.
	open int
}

// Lone bounds how many signatures inside operations the execution verifies one by one, once the
// claims are judged: the bad ones, those of leases that are not committed yet, and those of
// recoveries, whose set may be another by then.
func (p *Prepared) Lone() int {
	n := p.open
	for i := range p.Claims {
		c := &p.Claims[i]
		if c.operation != accountClaim && c.role != roleRecovery && !c.OK {
			n++
		}
	}
	return n
}

func signed(c tx.Countersignature) int {
	if c.IsZero() {
		return 0
	}
	return 1
}

// Prepare lists the signatures of a transaction as the committed state sees it. The error
// (ErrSigner, or see sig.AccountSignature.Check) says why the account's signature would be refused
// by that state; the result can be applied all the same, because a transaction before it in the
// block may change who signs: execution judges by the state it finds, uses a claim only if it is
// about the very key that must sign, and verifies what no claim covers.
func (s *State) Prepare(t *tx.Transaction) (Prepared, error) {
	preimage := t.AppendPreimage(make([]byte, 0, len(t.BodyBytes())+64), s.genesis.anchor)
	p := Prepared{Tx: t, ID: sha256.Sum256(preimage)}
	held, err := s.KeysOf(t.Account, t.Signer)
	var set sig.KeySet
	if err == nil {
		set, err = t.Signature.Check(t.Account, held)
	}
	if err == nil {
		p.Claims = make([]Claim, 0, len(t.Signature.Signatures))
		for _, one := range t.Signature.Signatures {
			p.Claims = append(p.Claims, Claim{Key: set.Keys[one.Index], Preimage: preimage,
				Signature: one.Signature, operation: accountClaim})
		}
	}
	for i, o := range t.Operations {
		s.prepareOperation(&p, i, o)
	}
	return p, err
}

func (s *State) prepareOperation(p *Prepared, i int, operation tx.Operation) {
	anchor := s.genesis.anchor
	switch o := operation.(type) {
	case *tx.PlaceLease:
		p.Claims = append(p.Claims, Claim{Key: o.Lease.AgentKey, Signature: o.Signature,
			Preimage: o.Lease.Preimage(anchor), operation: i, role: roleAgent})
	case *tx.Charge:
		if l, ok := s.Lease(o.Note.Lease); ok {
			p.Claims = append(p.Claims, Claim{Key: l.Lease.AgentKey, Signature: o.Signature,
				Preimage: o.Note.Preimage(anchor), operation: i, role: roleAgent})
			p.addAck(i, &l, o.Countersignature, o.Note.AckPreimage(anchor))
		} else {
			p.open += 1 + signed(o.Countersignature)
		}
	case *tx.Accept:
		if l, ok := s.Lease(o.Lease); ok {
			p.addAck(i, &l, o.Countersignature, tx.AcceptPreimage(anchor, o.Lease))
		} else {
			p.open += signed(o.Countersignature)
		}
	case *tx.Reject:
		if l, ok := s.Lease(o.Lease); ok {
			p.addAck(i, &l, o.Countersignature, tx.RejectPreimage(anchor, o.Lease, o.Evidence))
		} else {
			p.open += signed(o.Countersignature)
		}
	case *tx.Spend:
		if l, ok := s.Lease(o.Order.Lease); ok {
			p.Claims = append(p.Claims, Claim{Key: l.Lease.SessionKey, Signature: o.Signature,
				Preimage: o.Order.Preimage(anchor), operation: i, role: roleSession})
		} else {
			p.open++
		}
	case *tx.Recover:
		p.open += len(o.Signatures)
		signers, _ := s.Signers(o.Intent.Account)
		p.addRecovery(i, o, signers.Recovery.Keys, anchor)
	}
}

func (p *Prepared) addAck(i int, l *tx.LeaseState, c tx.Countersignature, preimage []byte) {
	if c.IsZero() || int64(c.Index) >= int64(len(l.Lease.AckKeys)) {
		return
	}
	p.Claims = append(p.Claims, Claim{Key: l.Lease.AckKeys[c.Index], Signature: c.Signature,
		Preimage: preimage, operation: i, role: roleAck})
}

func (p *Prepared) addRecovery(i int, o *tx.Recover, by sig.KeySet, anchor sig.Anchor) {
	preimage := o.Intent.Preimage(anchor)
	for _, one := range o.Signatures {
		if int64(one.Index) < int64(len(by.Keys)) {
			p.Claims = append(p.Claims, Claim{Key: by.Keys[one.Index], Signature: one.Signature,
				Preimage: preimage, operation: i, role: roleRecovery})
		}
	}
}

// verify judges a signature of the operation in hand: by a claim that was verified and is about
// this key and signature, else here. The preimage comes from the operation and the role alone.
// A recovery has several signatures, and which key one is about depends on the set in force: a
// verdict must not pass from one to another, or ledgers that verified at other times would
// disagree.
func (x *Execution) verify(r role, key sig.PublicKey, signature sig.Signature,
	preimage func() []byte) bool {
	for x.claims < len(x.prepared.Claims) && x.prepared.Claims[x.claims].operation < x.index {
		x.claims++
	}
	for i := x.claims; i < len(x.prepared.Claims); i++ {
		c := &x.prepared.Claims[i]
		if c.operation != x.index {
			break
		}
		if c.role == r && c.OK && c.Key == key && c.Signature == signature {
			return true
		}
	}
	return sig.Verify(key, preimage(), signature)
}

// authorize checks that the sender, whose set or delegate's key is held, said the transaction, and
// returns the set that did.
func (x *Execution) authorize(held sig.KeySet) (sig.KeySet, error) {
	t := x.prepared.Tx
	set, err := t.Signature.Check(t.Account, held)
	if err != nil || x.ctx.Replay {
		return set, err
	}
	for i, one := range t.Signature.Signatures {
		key := set.Keys[one.Index]
		if i < len(x.prepared.Claims) {
			c := &x.prepared.Claims[i]
			if c.operation == accountClaim && c.OK && c.Key == key {
				continue
			}
		}
		if !sig.Verify(key, t.AppendPreimage(nil, x.s.genesis.anchor), one.Signature) {
			return sig.KeySet{}, sig.ErrSignature
		}
	}
	return set, nil
}
