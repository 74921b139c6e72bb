package replicate_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(workerDatabase) != "" {
		fmt.Println("ended:", work())
		os.Exit(1)
	}
	// The driver closes a connection whose query was broken off, as the end of an engine does, in its own time.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgconn.(*PgConn).asyncClose.func1"))
}
