// Package price turns usage and posted prices into grains, the same on both sides of a bill, and
// resources into the rate of a lease.
//
// amount = run price x runs + sum of floor(usage_i x price_i / unit_i); products take 128 bits and
// what does not fit 64 is an error, never a wrapped number. The rate of a lease is the sum of
// ceil(price_i x reserved_i per hour), so no usage within what is reserved can cost more than the
// rate allows (docs/domain.md section 4).
package price
