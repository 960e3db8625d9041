<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

use PMP\Analytics\Clock;

/**
 * The erasers of WordPress, of WooCommerce and of other plugins, as Tools > Erase Personal Data runs them: comments, orders,
 * customers, whatever the shop has chosen to erase.
 */
final class SiteErasers
{
    public function __construct(private readonly Clock $clock)
    {
    }

    /**
     * Runs them for an address; begun again, they go on with what is left.
     *
     * @param float $until When to stop, in seconds since 1970.
     * @return bool False when something is left to do.
     */
    public function run(string $email, float $until): bool
    {
        $erasers = (array) apply_filters('wp_privacy_personal_data_erasers', []);
        // Ours has been run, and the mesh's would ask the mesh, whose call this is.
        foreach (array_diff_key($erasers, [PersonalData::ID => true, MeshData::ID => true]) as $eraser) {
            for ($page = 1, $done = false; ! $done; ++$page) {
                if ($this->clock->now() >= $until) {
                    return false;
                }
                $result = call_user_func($eraser['callback'], $email, $page);
                if (! is_array($result)) {
                    return false;
                }
                $done = (bool) ($result['done'] ?? true);
            }
        }
        return true;
    }
}
