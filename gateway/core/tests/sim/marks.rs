//! What must have happened at least once over a run. A simulation that never got there proves nothing about it.

macro_rules! marks {
    ($($name:ident,)+) => {
        /// Something worth having seen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mark { $($name,)+ }

        impl Mark {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)+];
        }
    };
}

marks! {
    // Grants, by rule.
    GrantByCloud, GrantByList, GrantByCachedAccept, GrantAtHalfCaps, GrantWhileLocal, GrantOnEmergencyCredit,
    GrantByFreeVend, AskedAgainAtLowerCount,
    // Instruments.
    GrantByVoucher, GrantByKeypad, RemainderDrawn, RedeemedAlone, RedeemedTold, RedeemedSpentAlready, RedeemedRevoked,
    RefusedForged, RefusedElsewhere, RefusedReplay, RefusedLockedOut, RefusedClock,
    // One-time codes.
    GrantByCode, CodeOfStepBefore, CodeOfStepAfter, RedeemedCodeAlone, RedeemedCodeTold, CodeBeyondDeviceClock,
    RefusedCodeForged, RefusedCodeElsewhere, RefusedCodeReplay, RefusedCodeLockedOut, RefusedCodeClock,
    RefusedCodeOfRevoked,
    // Refusals, by reason.
    RefusedDeviceState, RefusedRevoked, RefusedRate, RefusedOutageCount, RefusedConcurrent, RefusedOnlineRequired,
    RefusedUnknown, RefusedDenied, RefusedInvalid, RefusedNoCredit, RefusedListExpired, RefusedNoTariff,
    RefusedBySiteBudget, RefusedVelocity, RefusedByDisk,
    // The cloud.
    AskTimedOut, LateAcceptSecured, LateAnswerIgnored, WrongAnswerIgnored, DenialUnbacked, DenialKept, Throttled,
    LiedNotFound, LocalEntered, RecoveringFellBack, LocalLeft, DeniedInPart, LiedAccept, CanariesRight, DenierCaught,
    AcceptorCaught, CanariesSilent, CanariesThrottled, Contested, ContestUpheld, ContestOverturned, GoodUserDenied,
    TokenDenied, MassDenial, DeniedWhileLatched, BreakerReleased, EchoMissed, EchoedOnly, ReceiptOverdue,
    HelloUnanswered, ControlRefused, ImplausibleArtifact, CommitLocal, CommitBack, ControlLocal, ControlBack,
    // Sessions.
    Captured, Voided, CapturedWithoutStartMessage, Silent, SilentSpokeAgain, CapturedAfterSevenDays, VoidedAfterSilence,
    StopOfUnknown, StopWhileAsking, StopRepeated, GrantRepeated, RefusalRepeated, LimitReached, Finished, NotStarted,
    Abandoned, UserStopped, RemoteStopped, DeviceFault, NextSessionBeforeStop, RevokedWhileOpen, PriceChangedWhileOpen,
    SessionAcrossGatewayBoot, SilentUserServedElsewhere, LimitedAfterRevocation, LimitedAgain, StoppedByAnotherToken,
    StopOfAnotherTokenIgnored,
    // The gateway.
    CrashBeforeAppend, CrashAfterAppend, CrashAmongEffects, GrantDurableButUnsent, CrashInGroupCommit, GroupCommit,
    AppendFailed, ListHalfWritten, BootFromJournal, BootFromSnapshot,
    // Devices.
    PowerCut, PowerCutWhileAsking, PowerCutWhileRunning, ResumedAfterPowerCut, PowerCutAtStore, DeviceLostForGood,
    // The network.
    FrameLost, FrameTwice, FrameOvertaken, FrameReplayedUp, FrameReplayedDown, LinkCut,
    // The hub.
    HubPutBack, UploadRepeated, ReceiptLost, ListAdopted, ListSetAside, RevocationsAdopted, TariffsAdopted,
    RecordSetAside, RecordDisputed, RecordAdjusted,
    // Orders of the operator.
    OrderedStart, OrderedStop, OrderedRelease, OrderDone, OrderStale, OrderWithoutClock, OrderTooFar, OrderBusy,
    OrderUnknown, OrderRepeated, OrderWithdrawn, OrderNeverRan, StartedFromAfar, OutletReserved, ReservationUsed,
    ReservationOver, RefusedReserved,
    // Reports.
    OutageReported, OutageServed,
    // Trust.
    ListChangesAdopted, ListBaseUnknown, ListZeroed, ListAdoptedByOperator, ListRolledBack, ListTakenUpAgain,
    TariffsSetAside, TariffsAdoptedByOperator, KeysRotated, KeyRevoked, AccountRevoked, DeviceRevoked,
    RejectedStranger, RejectedRetired, RejectedDamaged, RejectedMiscounted, RejectedTrailer, RejectedOlder,
    SetAsideAgain, KeysComeTooLate,
    // Clocks.
    ClockJumpedAhead, ClockJumpedBack, ClockIn1970, ClockUnknown, ClockSet, ClockStepSeen,
    // The operator.
    PolicyAdopted, PolicySetAside, DiskScarce,
}

/// How often each mark was hit.
#[derive(Clone)]
pub(crate) struct Marks(Vec<u64>);

impl Marks {
    pub(crate) fn new() -> Self {
        Self(vec![0; Mark::ALL.len()])
    }

    pub(crate) fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(&other.0) {
            *sum += count;
        }
    }

    pub(crate) fn missing(&self) -> Vec<Mark> {
        Mark::ALL
            .iter()
            .copied()
            .filter(|&mark| self.0[mark as usize] == 0)
            .collect()
    }

    pub(crate) fn print(&self) {
        for row in Mark::ALL.chunks(4) {
            let cells = row
                .iter()
                .map(|&mark| format!("{:>27} {:<9}", format!("{mark:?}"), self.0[mark as usize]));
            println!("{}", cells.collect::<String>());
        }
    }
}
