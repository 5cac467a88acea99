// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Payment channels between buyers and sellers of inference
/// @notice A payer deposits for one payee, signs vouchers of a growing total off the chain, and the payee redeems the highest.
/// Nobody owns this contract, nothing in it can be changed, and it holds no rule that favours who deployed it.
/// @dev What it defends against, and which test shows it, is in README.md beside this file.
contract Channels {
    /// Three words, so that a redemption reads three and writes one. 96 bits are 79 billion coins of 18 decimals.
    struct Channel {
        address payer;
        uint96 deposit; // all that was ever paid in
        address payee;
        uint96 redeemed; // all that the payee ever got
        address token; // zero: the chain's own coin
        uint64 exitAt; // 0: open; CLOSED: for ever closed; else when the payer may take the rest
    }

    /// The time that a payee has for its last voucher after the payer wants out.
    uint64 public constant CHALLENGE = 1 days;
    uint64 private constant CLOSED = type(uint64).max;

    bytes32 private constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant NAME = keccak256("infernet channels");
    bytes32 private constant VERSION = keccak256("1");
    bytes32 private constant VOUCHER = keccak256("Voucher(bytes32 channel,bytes16 job,uint96 amount)");
    bytes32 private constant CLOSE = keccak256("Close(bytes32 channel,uint96 amount)");
    /// Half of the order of secp256k1: a signature with an s above it has a twin below (EIP-2).
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    mapping(bytes32 id => Channel) public channels;
    bool private transient entered;

    event Opened(bytes32 indexed id, address indexed payer, address indexed payee, address token, uint96 deposit, bytes32 salt);
    event ToppedUp(bytes32 indexed id, uint96 deposit);
    event Redeemed(bytes32 indexed id, bytes16 indexed job, uint96 redeemed, uint96 paid);
    event ExitStarted(bytes32 indexed id, uint64 exitAt);
    event Closed(bytes32 indexed id, uint96 redeemed, uint96 refunded);

    error Reentered();
    error ChannelExists();
    error NoSuchChannel();
    error ChannelClosed();
    error ExitUnderWay(uint64 exitAt);
    error NoExit();
    error ExitTooEarly(uint64 exitAt);
    error NotPayer();
    error BadPayee();
    error NoAmount();
    error AmountTooLarge();
    error WrongValue(uint256 expected);
    error NothingNew(uint96 redeemed);
    error BadAmount(uint96 redeemed, uint96 deposit);
    error BadSignature();
    error TransferFailed();
    error FeeOnTransfer(uint256 received);

    modifier once() {
        if (entered) revert Reentered();
        entered = true;
        _;
        entered = false;
    }

    /// @notice The id of a channel: it binds the chain, this contract, both sides and the token.
    function channelId(address payer, address payee, address token, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), payer, payee, token, salt));
    }

    /// @notice Opens a channel from the caller to `payee`. An id is used once, even after its channel is closed: old vouchers
    /// must not come alive again.
    function open(address payee, address token, uint96 amount, bytes32 salt) external payable once returns (bytes32 id) {
        if (payee == address(0) || payee == msg.sender || payee == address(this)) revert BadPayee();
        id = channelId(msg.sender, payee, token, salt);
        Channel storage channel = channels[id];
        if (channel.payer != address(0)) revert ChannelExists();
        channel.payer = msg.sender;
        channel.payee = payee;
        channel.token = token;
        channel.deposit = amount;
        emit Opened(id, msg.sender, payee, token, amount, salt);
        take(token, amount);
    }

    /// @notice Adds to the deposit. Only the payer can, and not on the way out.
    function topUp(bytes32 id, uint96 amount) external payable once {
        Channel storage channel = existing(id);
        if (msg.sender != channel.payer) revert NotPayer();
        if (channel.exitAt != 0) revert ExitUnderWay(channel.exitAt);
        if (amount > type(uint96).max - channel.deposit) revert AmountTooLarge();
        channel.deposit += amount;
        emit ToppedUp(id, channel.deposit);
        take(channel.token, amount);
    }

    /// @notice Pays the payee what a voucher of the payer covers beyond what was paid before. Anybody may send it: the money goes
    /// to the payee alone. A voucher above the deposit pays the deposit. It counts until the channel is closed.
    function redeem(bytes32 id, bytes16 job, uint96 amount, bytes32 r, bytes32 vs) external once {
        Channel storage channel = existing(id);
        if (signer(keccak256(abi.encode(VOUCHER, id, job, amount)), r, vs) != channel.payer) revert BadSignature();
        (uint96 redeemed, uint96 deposit) = (channel.redeemed, channel.deposit);
        uint96 total = amount < deposit ? amount : deposit;
        if (total <= redeemed) revert NothingNew(redeemed);
        channel.redeemed = total;
        emit Redeemed(id, job, total, total - redeemed);
        give(channel.token, channel.payee, total - redeemed);
    }

    /// @notice Ends a channel at once, with `amount` as the payee's total, which both sides signed. Anybody may send it.
    function close(bytes32 id, uint96 amount, bytes32 payerR, bytes32 payerVs, bytes32 payeeR, bytes32 payeeVs) external once {
        Channel storage channel = existing(id);
        (uint96 redeemed, uint96 deposit) = (channel.redeemed, channel.deposit);
        if (amount < redeemed || amount > deposit) revert BadAmount(redeemed, deposit);
        bytes32 body = keccak256(abi.encode(CLOSE, id, amount));
        if (signer(body, payerR, payerVs) != channel.payer) revert BadSignature();
        if (signer(body, payeeR, payeeVs) != channel.payee) revert BadSignature();
        channel.redeemed = amount;
        channel.exitAt = CLOSED;
        emit Closed(id, amount, deposit - amount);
        give(channel.token, channel.payee, amount - redeemed);
        give(channel.token, channel.payer, deposit - amount);
    }

    /// @notice The payer wants out: from now on the payee has CHALLENGE to redeem.
    function startExit(bytes32 id) external {
        Channel storage channel = existing(id);
        if (msg.sender != channel.payer) revert NotPayer();
        if (channel.exitAt != 0) revert ExitUnderWay(channel.exitAt);
        channel.exitAt = uint64(block.timestamp) + CHALLENGE;
        emit ExitStarted(id, channel.exitAt);
    }

    /// @notice Gives the payer the rest, when the time of the payee is over. Anybody may send it: it depends on nobody's goodwill.
    function finishExit(bytes32 id) external once {
        Channel storage channel = existing(id);
        if (channel.exitAt == 0) revert NoExit();
        if (block.timestamp < channel.exitAt) revert ExitTooEarly(channel.exitAt);
        uint96 rest = channel.deposit - channel.redeemed;
        channel.exitAt = CLOSED;
        emit Closed(id, channel.redeemed, rest);
        give(channel.token, channel.payer, rest);
    }

    function existing(bytes32 id) private view returns (Channel storage channel) {
        channel = channels[id];
        if (channel.payer == address(0)) revert NoSuchChannel();
        if (channel.exitAt == CLOSED) revert ChannelClosed();
    }

    /// Who signed typed data (EIP-712), by a compact signature (EIP-2098). Never zero. The chain id is read each time: after a fork
    /// of the chain the signatures of one side are worth nothing on the other.
    function signer(bytes32 body, bytes32 r, bytes32 vs) private view returns (address who) {
        bytes32 domain = keccak256(abi.encode(DOMAIN, NAME, VERSION, block.chainid, address(this)));
        uint256 s = uint256(vs) & (type(uint256).max >> 1);
        if (s > HALF_ORDER) revert BadSignature();
        who = ecrecover(keccak256(abi.encodePacked(hex"1901", domain, body)), uint8(uint256(vs) >> 255) + 27, r, bytes32(s));
        if (who == address(0)) revert BadSignature();
    }

    /// Takes exactly `amount` from the caller. A token that takes a fee on the way is refused, since others' deposits would pay it.
    function take(address token, uint96 amount) private {
        if (amount == 0) revert NoAmount();
        if (token == address(0)) {
            if (msg.value != amount) revert WrongValue(amount);
            return;
        }
        if (msg.value != 0) revert WrongValue(0);
        uint256 before = balance(token);
        call(token, abi.encodeWithSignature("transferFrom(address,address,uint256)", msg.sender, address(this), amount));
        // Below `before` is no more honest than a fee.
        uint256 later = balance(token);
        uint256 received = later > before ? later - before : 0;
        if (received != amount) revert FeeOnTransfer(received);
    }

    function give(address token, address to, uint96 amount) private {
        if (amount == 0) return;
        if (token == address(0)) {
            (bool sent,) = to.call{value: amount}("");
            if (!sent) revert TransferFailed();
        } else {
            call(token, abi.encodeWithSignature("transfer(address,uint256)", to, amount));
        }
    }

    /// An answer of no length comes from an address without code: there is no such token.
    function balance(address token) private view returns (uint256) {
        (bool read, bytes memory answer) = token.staticcall(abi.encodeWithSignature("balanceOf(address)", address(this)));
        if (!read || answer.length < 32) revert TransferFailed();
        return abi.decode(answer, (uint256));
    }

    /// Some tokens return nothing, some return false instead of reverting. An address without code would "succeed", but `take` has
    /// read a balance there, and since Cancun (EIP-6780) no code goes away.
    function call(address token, bytes memory data) private {
        (bool done, bytes memory answer) = token.call(data);
        if (!done) revert TransferFailed();
        if (answer.length != 0 && (answer.length < 32 || !abi.decode(answer, (bool)))) revert TransferFailed();
    }
}
