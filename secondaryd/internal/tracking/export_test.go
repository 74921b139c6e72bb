package tracking

// The statements whose query plans a test looks at.
const (
	ClaimQuery     = claimQuery
	EarliestQuery  = earliestQuery
	CountQuery     = countQuery
	LeasedQuery    = leasedQuery
	TotalsQuery    = totalsQuery
	LastErrorQuery = lastErrorQuery
	StaleQuery     = staleQuery
	HeldQuery      = rowsQuery + heldOrder
	FailedQuery    = rowsQuery + failedOrder
)
