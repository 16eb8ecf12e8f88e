package gateway

import "github.com/united-containers/ucn/kit/fault"

// Reasons of the faults that the gateway itself gives.
const (
	// ReasonID: an id in the path or the query is not one.
	ReasonID fault.Reason = "ID_INVALID"
	// ReasonRequest: the body or a parameter cannot be read as what the route takes.
	ReasonRequest fault.Reason = "REQUEST_INVALID"
	// ReasonParameter: the path does not take a parameter of this name.
	ReasonParameter fault.Reason = "PARAMETER_UNKNOWN"
	// ReasonRoute: there is no such path.
	ReasonRoute fault.Reason = "ROUTE_UNKNOWN"
	// ReasonMethod: the path does not take this method.
	ReasonMethod fault.Reason = "METHOD_NOT_ALLOWED"
	// ReasonBodyTooLarge: the body is larger than the route takes.
	ReasonBodyTooLarge fault.Reason = "BODY_TOO_LARGE"
	// ReasonBodyCut: the body ended, or stopped coming, before it was whole.
	ReasonBodyCut fault.Reason = "BODY_INCOMPLETE"
	// ReasonRange: no byte of the file lies in the range.
	ReasonRange fault.Reason = "RANGE_NOT_SATISFIABLE"
	// ReasonBusy: as many streams or transfers are under way as the gateway allows.
	ReasonBusy fault.Reason = "GATEWAY_BUSY"
	// ReasonNotRead: too many bytes of answers wait to be read. A stream goes on from where it ended.
	ReasonNotRead fault.Reason = "ANSWERS_NOT_READ"
	// ReasonGaveWay: a stream ended for another client's, whose address had fewer.
	ReasonGaveWay fault.Reason = "STREAM_GAVE_WAY"
	// ReasonKeyReused: the Idempotency-Key was used for another request.
	ReasonKeyReused fault.Reason = "IDEMPOTENCY_KEY_REUSED"
	// ReasonKeyBusy: the request with this Idempotency-Key is still under way.
	ReasonKeyBusy fault.Reason = "IDEMPOTENCY_KEY_BUSY"
	// ReasonKeysFull: too many keys are remembered.
	ReasonKeysFull fault.Reason = "IDEMPOTENCY_KEYS_FULL"
	// ReasonNoAttempt: the job has no such attempt, or none yet.
	ReasonNoAttempt fault.Reason = "NO_ATTEMPT"
	// ReasonNoLog: the attempt's log is neither on its host nor in storage.
	ReasonNoLog fault.Reason = "NO_LOG"
	// ReasonExecutor: the executor that the scheduler names is not certified.
	ReasonExecutor fault.Reason = "EXECUTOR_NOT_CERTIFIED"
	// ReasonHost: no host of this key is known.
	ReasonHost fault.Reason = "HOST_UNKNOWN"
	// ReasonNotOperator: the host is another operator's than the token.
	ReasonNotOperator fault.Reason = "NOT_OPERATOR"
	// ReasonNotSigned: the token is bound to another request.
	ReasonNotSigned fault.Reason = "REQUEST_NOT_SIGNED"
	// ReasonTokenWide: the token allows more than a host may see, or a gateway ask for.
	ReasonTokenWide fault.Reason = "TOKEN_TOO_WIDE"
	// ReasonLogDamaged: the stored log is not what a log is.
	ReasonLogDamaged fault.Reason = "LOG_DAMAGED"
	// ReasonFileForged: the storage sent, or named, something else than what stands there.
	ReasonFileForged fault.Reason = "FILE_NOT_GENUINE"

	// Of storage.
	reasonRangeOutside fault.Reason = "RANGE_OUTSIDE_BLOB"
	reasonBlobTooLarge fault.Reason = "BLOB_TOO_LARGE"
	reasonFull         fault.Reason = "STORAGE_FULL"
	reasonQuota        fault.Reason = "STORAGE_QUOTA_EXCEEDED"
	reasonPinned       fault.Reason = "REFERENCE_PINNED"
	reasonInDirectory  fault.Reason = "IN_DIRECTORY"
	reasonUploadDone   fault.Reason = "UPLOAD_FINISHED"

	reasonPolicyChanged fault.Reason = "POLICY_CHANGED" // of hosts

	reasonMessageTooLarge fault.Reason = "MESSAGE_TOO_LARGE" // of kit/rpc, which links gRPC
)

// HTTP status codes that say more than those of kinds of faults. 507 is RFC 4918's, for quotas RFC
// 4331's: 429 would have clients try again soon, and nothing gets better by that.
const (
	statusMethodNotAllowed = 405
	statusRequestTimeout   = 408
	statusConflict         = 409
	statusTooLarge         = 413
	statusRange            = 416
	statusUnprocessable    = 422
	statusNoRoom           = 507
)

// Status returns the HTTP status code of a fault.
func Status(f *fault.Error) int {
	switch f.Reason() {
	case ReasonMethod:
		return statusMethodNotAllowed
	case reasonPinned, reasonInDirectory, reasonUploadDone, reasonPolicyChanged:
		return statusConflict
	case ReasonBodyTooLarge, reasonMessageTooLarge, reasonBlobTooLarge:
		return statusTooLarge
	case ReasonBodyCut:
		return statusRequestTimeout
	case ReasonKeyReused:
		return statusUnprocessable
	case ReasonRange, reasonRangeOutside:
		return statusRange
	case reasonFull, reasonQuota:
		return statusNoRoom
	}
	return f.Kind().HTTP()
}
