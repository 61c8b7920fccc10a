//! Ethernet, from pins to a stack that asks DHCP for its address.

use app::tcp::{self, BUFFER_BYTES, SOCKETS, Tcp};
use embassy_executor::Spawner;
use embassy_net::{Runner, StackResources};
use embassy_stm32::{
    Peri,
    eth::{Ethernet, GenericPhy, PacketQueue, Sma},
    peripherals::{self, ETH, ETH_SMA},
    rng::Rng,
};
use proto::{address::Address, id::DeviceId, seal::PairSecret};
use static_cell::StaticCell;

use crate::wiring::Irqs;

/// The address of the board's PHY, a LAN8742.
const PHY: u8 = 0;
/// Frames that wait for sending and for being read; each is 1.5 KiB.
const SENDING: usize = 3;
const RECEIVED: usize = 4;

type Interface = Ethernet<'static, ETH, GenericPhy<Sma<'static, ETH_SMA>>>;

/// What a network is made of: pins of RMII, and a source of random numbers.
pub(crate) struct Parts {
    pub(crate) eth: Peri<'static, ETH>,
    pub(crate) sma: Peri<'static, ETH_SMA>,
    pub(crate) rng: Peri<'static, peripherals::RNG>,
    pub(crate) ref_clk: Peri<'static, peripherals::PA1>,
    pub(crate) mdio: Peri<'static, peripherals::PA2>,
    pub(crate) mdc: Peri<'static, peripherals::PC1>,
    pub(crate) crs_dv: Peri<'static, peripherals::PA7>,
    pub(crate) rxd0: Peri<'static, peripherals::PC4>,
    pub(crate) rxd1: Peri<'static, peripherals::PC5>,
    pub(crate) tx_en: Peri<'static, peripherals::PG11>,
    pub(crate) txd0: Peri<'static, peripherals::PG13>,
    pub(crate) txd1: Peri<'static, peripherals::PB13>,
}

/// Brings the network up, and keeps the device connected from now on.
#[inline(never)]
pub(crate) fn start(spawner: Spawner, parts: Parts, id: DeviceId, secret: PairSecret, gateway: Option<Address>) {
    let seed = Rng::new(parts.rng, Irqs).next_u64();
    let interface = Ethernet::new_with_phy(
        packets(),
        parts.eth,
        Irqs,
        parts.ref_clk,
        parts.crs_dv,
        parts.rxd0,
        parts.rxd1,
        parts.txd0,
        parts.txd1,
        parts.tx_en,
        tcp::mac_of(&embassy_stm32::uid::uid()),
        GenericPhy::new(Sma::new(parts.sma, parts.mdio, parts.mdc), PHY),
    );
    static RESOURCES: StaticCell<StackResources<SOCKETS>> = StaticCell::new();
    let resources = RESOURCES.init_with(StackResources::new);
    let config = embassy_net::Config::dhcpv4(embassy_net::DhcpConfig::default());
    let (stack, runner) = embassy_net::new(interface, config, resources, seed);
    spawner.spawn(run_network(runner).expect("once"));

    static RX: StaticCell<[u8; BUFFER_BYTES]> = StaticCell::new();
    static TX: StaticCell<[u8; BUFFER_BYTES]> = StaticCell::new();
    let (rx, tx) = (RX.init_with(|| [0; BUFFER_BYTES]), TX.init_with(|| [0; BUFFER_BYTES]));
    let tcp = Tcp::new(stack, rx, tx, gateway);
    spawner.spawn(run_link(id, secret, tcp).expect("once"));
}

/// Buffers of the Ethernet's DMA, made in place: they are larger than a stack likes.
fn packets() -> &'static mut PacketQueue<SENDING, RECEIVED> {
    static PACKETS: StaticCell<PacketQueue<SENDING, RECEIVED>> = StaticCell::new();
    let packets = PACKETS.uninit();
    PacketQueue::init(packets);
    #[expect(unsafe_code, reason = "embassy's way to make them in place")]
    // SAFETY: `init` has made them.
    unsafe {
        packets.assume_init_mut()
    }
}

#[embassy_executor::task]
async fn run_network(mut runner: Runner<'static, Interface>) {
    runner.run().await;
}

#[embassy_executor::task]
async fn run_link(id: DeviceId, secret: PairSecret, tcp: Tcp<'static>) {
    app::link::run(&id, &secret, tcp, &board::WIRES).await;
}
