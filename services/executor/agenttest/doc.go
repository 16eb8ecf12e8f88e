// Package agenttest holds complete in-memory stand-ins for what an executor's agent works with
// (journal, ledger, storage), and the contract suite of journals. Each stand-in can be told to
// fail, or to do what it was asked and then fail, at any of its calls.
//
// It is for tests only and forgets everything when the process ends.
package agenttest

// Hook is asked at every call of a stand-in, with the name of the method. When before is not nil
// the call does nothing and returns it; when after is not nil the call takes effect and then
// returns it. A nil Hook lets everything pass.
type Hook func(op string) (before, after error)

func (h Hook) ask(op string) (before, after error) {
	if h == nil {
		return nil, nil
	}
	return h(op)
}
