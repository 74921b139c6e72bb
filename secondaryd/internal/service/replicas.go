package service

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

// Describe returns what this process says of itself to the site's others; join reads it.
func (s *Status) Describe() string {
	text, err := protojson.Marshal(s.own())
	if err != nil {
		return "" // a process whose state cannot be read, which join leaves out; every text is clipped, so there is none
	}
	return string(text)
}

// own is the part of a status that this process knows of itself. Whether it is connected says only the leader.
func (s *Status) own() *antipodev1.NodeStatus {
	st := &antipodev1.NodeStatus{
		Version: s.from.Version, StartedAt: timestamppb.New(s.from.StartedAt), BytesCopied: s.from.Bytes(),
		Active: s.active(),
		Replicas: []*antipodev1.Replica{{
			Name: s.from.Replica.Name(), Version: s.from.Version, StartedAt: timestamppb.New(s.from.StartedAt),
			SeenAt: timestamppb.Now(), Leads: s.from.Replica.Leads(),
		}},
	}
	if s.from.Replica.Leads() {
		var why error
		if st.Connected, why = s.from.Follower.Connected(); !st.Connected {
			problem(st, "not connected to the primary", why)
		}
	}
	if !s.from.Replica.Works() {
		problem(st, s.from.Replica.Name()+" waits for the end of processes that replicate by another configuration", nil)
	}
	return st
}

// join adds what the site's other processes say of themselves. What one says that speaks another version, and cannot be
// read, is left out.
func (s *Status) join(ctx context.Context, st *antipodev1.NodeStatus) error {
	leader, err := s.from.Replica.Leader(ctx)
	if err != nil {
		return err
	}
	rows, err := s.from.Tracking.Replicas(ctx)
	if err != nil {
		return err
	}
	mine := st.GetReplicas()[0]
	mine.Leads = mine.GetName() == leader // which it learns late when it was stopped
	st.Connected = st.GetConnected() && mine.GetLeads()
	for _, row := range rows {
		other := &antipodev1.NodeStatus{}
		err := protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(row.Report), other)
		if row.Name == mine.GetName() || err != nil || len(other.GetReplicas()) != 1 {
			continue
		}
		replica := other.GetReplicas()[0]
		replica.SeenAt, replica.Leads = timestamppb.New(row.SeenAt), row.Name == leader
		st.Connected = st.GetConnected() || replica.GetLeads() && other.GetConnected()
		st.Replicas = append(st.GetReplicas(), replica)
		st.Active = append(st.GetActive(), other.GetActive()...)
		st.Problems = append(st.GetProblems(), other.GetProblems()...)
		st.BytesCopied += other.GetBytesCopied()
	}
	slices.SortFunc(st.GetReplicas(), func(a, b *antipodev1.Replica) int { return strings.Compare(a.GetName(), b.GetName()) })
	st.Active = first(st.GetActive(), mostActive)
	st.Replicas, st.Problems = first(st.GetReplicas(), mostReplicas), first(st.GetProblems(), mostProblems)
	return nil
}

func first[T any](list []T, most int) []T { return list[:min(most, len(list))] }

func (s *Status) active() []*antipodev1.ActiveSync {
	var list []*antipodev1.ActiveSync
	for _, work := range s.from.Engine.Active() {
		if len(list) == mostActive {
			break
		}
		done, total := work.Bytes()
		list = append(list, &antipodev1.ActiveSync{
			Repository: work.Repository, StartedAt: timestamppb.New(work.StartedAt), BytesDone: done, BytesTotal: total,
			BytesPerSecond: work.Rate(), Replica: s.from.Replica.Name(),
		})
	}
	return list
}
