<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP\Analytics\Clock;

/**
 * Pauses delivery when the mesh is unavailable, longer each time. Stored in the database, so that it applies to all processes.
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
     * @param float|null $seconds Duration requested by the mesh; null for the backoff.
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
     * Ends the pause after a successful delivery.
     */
    public function end(): void
    {
        update_option(self::OPTION, ['delivered_at' => $this->clock->now()] + self::NOTHING, false);
    }

    /**
     * Ends the pause because its reason may be gone.
     */
    public function forget(): void
    {
        update_option(self::OPTION, ['delivered_at' => $this->state()['delivered_at']] + self::NOTHING, false);
    }

    /**
     * @return array{failures: int, until: float, reason: string, delivered_at: float} Times are seconds since 1970; 0 for never.
     */
    public function state(): array
    {
        return array_merge(self::NOTHING, (array) get_option(self::OPTION, []));
    }
}
