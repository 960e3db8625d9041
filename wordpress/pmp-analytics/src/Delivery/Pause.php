<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP\Analytics\Clock;

/**
 * Leaves the mesh alone for a while when it can't answer, longer each time. Kept in the database, so that all processes obey.
 */
final class Pause
{
    public const OPTION = 'pmp_analytics_delivery';

    private const NOTHING = ['failures' => 0, 'until' => 0.0, 'reason' => '', 'delivered_at' => 0.0];

    public function __construct(private readonly Clock $clock)
    {
    }

    public function is_on(): bool
    {
        return $this->state()['until'] > $this->clock->now();
    }

    /**
     * @param float|null $seconds How long the mesh asked for; null to decide here.
     */
    public function begin(string $reason, ?float $seconds = null): void
    {
        $state = $this->state();
        ++$state['failures'];
        $seconds ??= Backoff::seconds($state['failures'], random_int(0, 1000) / 1000);
        $state['until'] = $this->clock->now() + $seconds;
        $state['reason'] = mb_substr($reason, 0, 500);
        update_option(self::OPTION, $state, false);
    }

    /**
     * Something was delivered: all is well.
     */
    public function end(): void
    {
        update_option(self::OPTION, ['delivered_at' => $this->clock->now()] + self::NOTHING, false);
    }

    /**
     * @return array{failures: int, until: float, reason: string, delivered_at: float} Times are seconds since 1970; 0 for never.
     */
    public function state(): array
    {
        return array_merge(self::NOTHING, (array) get_option(self::OPTION, []));
    }
}
