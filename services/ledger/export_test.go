package ledger

// SetInForce has a function called when a block's state is in force and it is not the head yet.
func (d *Deps) SetInForce(f func()) { d.inForce = f }

// SetVerifying has a function called with how many signatures a submission has verified.
func (d *Deps) SetVerifying(f func(signatures int)) { d.verifying = f }
